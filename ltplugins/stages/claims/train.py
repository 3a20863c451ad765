# SPDX-License-Identifier: MIT
"""Cells that are missing are trained; what the commands that do it have in common."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from ltplugins.core.console import make_console
from ltplugins.stages.claims.cells import Cell, Setting, note_setting
from ltplugins.stages.claims.pack import MOST, pack

ROOT = "runs/claims"
Teller = Callable[[str], None]


def parser_of(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A command line with the words that all commands have which train cells."""
    found = argparse.ArgumentParser(prog=prog, description=description, epilog=epilog)
    add = found.add_argument
    add("words", nargs="*", help="key=value of every pretraining")
    add("--root", default=ROOT, help="folder of the cells (%(default)s)")
    add("--jobs", type=whole, default=1, metavar="N", help="cells at once, a thread each")
    add("--accelerator", choices=("cpu", "cuda"), default="cpu", help="cuda: all on card 0")
    add("--start", choices=("fork", "spawn"), default="fork", help="how processes are made")
    add(
        "--collect",
        metavar="FILE.tar",
        help=f"pack what there is for elsewhere, {MOST} files below 15 MB at most",
    )
    return found


def setting_of(options: argparse.Namespace) -> Setting:
    """What a command line asks of every cell."""
    return Setting(
        root=Path(options.root),
        accelerator=options.accelerator,
        words=tuple(options.words),
        pairs=options.pairs,
        epochs=options.epochs,
    )


def train(
    missing: Sequence[Cell], setting: Setting, options: argparse.Namespace, tell: Teller
) -> int:
    """Train; the exit code: 143 where a signal ended it, 1 where a cell has failed."""
    from ltplugins.stages.claims.pool import Pool
    from ltplugins.stages.claims.work import run_cell, warm_up

    warm_up(missing[0])
    note_setting(setting)
    outcome = Pool(run_cell, options.jobs, tell, options.start).run(list(missing), options.limit)
    tell(
        f"{len(outcome.done)} done, {len(outcome.failed)} failed, {len(outcome.stopped)} stopped, "
        f"{len(outcome.elsewhere)} trained elsewhere, {len(outcome.left)} not begun; the same "
        f"command goes on."
    )
    if outcome.is_interrupted:
        return 143
    return 1 if outcome.failed else 0


def collect(cells: Sequence[Cell], root: Path, file: Path, tell: Teller, most: int = MOST) -> None:
    """Pack what there is of these cells, to be unpacked into the same folder elsewhere."""
    tell_packed(*pack(cells, root, file, most=most), tell)


def tell_packed(files: Sequence[Path], absent: Sequence[str], tell: Teller) -> None:
    """Say which archives were written, and what found no room in them."""
    for file in files:
        tell(f"packed: {file} ({file.stat().st_size / 1e6:.1f} MB)")
    if absent:
        tell(f"no room for {len(absent)} files, such as {absent[0]}")


def teller(stderr: bool) -> Teller:
    """What writes a command's lines, names in them as they stand."""
    console = make_console(stderr=stderr)

    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    return tell


def whole(text: str) -> int:
    """A number of a command line.

    Raises:
        ArgumentTypeError: it is no whole number of 1 or more.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)
