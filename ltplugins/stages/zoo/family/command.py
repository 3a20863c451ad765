# SPDX-License-Identifier: MIT
"""``make zoo``: train the cells that are missing, then add the entries of finished ones."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ltplugins.core.door import guarded
from ltplugins.core.errors import UserError, unknown
from ltplugins.stages.claims.cells import Cell
from ltplugins.stages.claims.pack import MOST, pack_folders
from ltplugins.stages.claims.train import (
    Teller,
    collect,
    parser_of,
    setting_of,
    tell_packed,
    teller,
    train,
    whole,
)
from ltplugins.stages.zoo.family.plan import Plan, plan_family, read_family

FILE, ZOO = "scripts/sweep/zoo.yaml", "zoo"
_OF_CELLS = 2  # archives; the others are for entries
_EPILOG = """The same command again goes on, and leaves what is there. Cells are those of
scripts/claims.py: give both the same --root, --accelerator and words.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/zoo.py``."""
    options = parser().parse_args(arguments)
    guarded(lambda: make_family(options))


def make_family(options: argparse.Namespace) -> None:
    """Train the missing cells of the chosen entries, then write every entry that can be written.

    Raises:
        UserError: a wrong file, name or word, before anything is trained.
        SystemExit: with 1 where a cell or an entry has failed, 143 where a signal ended the call.
    """
    family, book = read_family(Path(options.file))
    setting = setting_of(options)
    plans = _chosen(plan_family(family, book, setting, _zoo(options)), options.only)
    for plan in plans:
        for cell in plan.cells:
            cell.require_same()
    states = {plan.name: plan.state(options.replace) for plan in plans}
    missing = _missing([plan for plan in plans if states[plan.name] == "train"])
    tell = teller(stderr=not options.list)
    for plan in plans:
        tell(f"{plan.name}: {_told(plan, states[plan.name])}")
    if options.list:
        return
    code = train(missing, setting, options, tell) if missing and options.limit != 0 else 0
    if options.collect:  # first: whoever has set a limit may end the call soon after it
        cells = {cell.name: cell for plan in plans for cell in plan.cells}
        collect(list(cells.values()), setting.root, Path(options.collect), tell, _OF_CELLS)
    file = Path(options.collect) if options.collect else None
    failed = _add([plan for plan in plans if states[plan.name] != "nothing"], tell, file)
    if code or failed:
        raise SystemExit(code or 1)


def _zoo(options: argparse.Namespace) -> Path:
    """Where the entries go: those of a trial beside its cells."""
    if options.zoo is not None:
        return Path(options.zoo)
    is_the_real_one = (options.file, options.epochs, options.pairs) == (FILE, None, None)
    return Path(ZOO if is_the_real_one else Path(options.root) / "zoo")


def _chosen(plans: Sequence[Plan], names: Sequence[str] | None) -> list[Plan]:
    known = [plan.name for plan in plans]
    for name in names or ():
        if name not in known:
            raise UserError(f"--only: {unknown('entry', name, known)}")
    return [plan for plan in plans if names is None or plan.name in names]


def _missing(plans: Sequence[Plan]) -> list[Cell]:
    """The cells to train, each once, in the order of the entries."""
    return list({cell.name: cell for plan in plans for cell in plan.missing()}.values())


def _told(plan: Plan, state: str) -> str:
    if state == "nothing":
        return f"there, of {len(plan.repetitions())} runs"
    done = sum(cell.is_done for cell in plan.cells[: plan.pairs])
    told = f"{done} of {plan.pairs} cells are finished"
    return told if state == "add" else f"{told}, the next is {plan.missing()[0].name}"


def _add(plans: Sequence[Plan], tell: Teller, file: Path | None) -> int:
    """Write the entries whose cells are finished; return how many could not be.

    Args:
        file: of the archives that they are packed for, after each: time may be up at any moment.
    """
    from ltplugins.stages.zoo.add import Naming, add

    written: list[Path] = []
    failed = 0
    for plan in plans:
        if not all(cell.is_done for cell in plan.cells[: plan.pairs]):
            continue
        try:
            runs = [cell.path for cell in plan.done]
            place = add(runs, plan.entry.parent, Naming(plan.name, replace=True, half=plan.half))
        except UserError as error:  # of one entry: the others do not wait for it
            failed += 1
            tell(f"failed: {plan.name}: {error}")
        else:
            written.append(place)
            tell(f"written: {place}, of {len(runs)} runs")
            if file is not None:
                _collect(written, file, tell)
    return failed


def _collect(entries: Sequence[Path], file: Path, tell: Teller) -> None:
    """Pack the entries beside their cells: weights that are too large as a checkpoint fit so."""
    entries_file = file.with_name(f"{file.stem}.entries{file.suffix}")
    tell_packed(*pack_folders(entries, entries_file, most=MOST - _OF_CELLS), tell)


def parser() -> argparse.ArgumentParser:
    """The command line of ``scripts/zoo.py``."""
    described = "Train the cells that the zoo's family needs, and add its entries."
    found = parser_of("zoo", described, _EPILOG)
    add = found.add_argument
    add("--file", default=FILE, help="the family (%(default)s)")
    add("--zoo", help=f"folder of the entries ({ZOO}; of a trial, ROOT/zoo)")
    add("--only", nargs="+", metavar="ENTRY", help="these entries")
    add("--pairs", type=whole, metavar="N", help="of each entry, instead of the file's")
    add("--epochs", type=whole, metavar="N", help="instead of the file's, for a trial")
    add("--limit", type=float, metavar="SECONDS", help="of training; 0: add what is finished")
    add("--replace", action="store_true", help="write entries anew that are there")
    add("--list", action="store_true", help="say what there is, and do nothing")
    return found
