# SPDX-License-Identifier: MIT
"""``make claims``, ``python scripts/claims.py``: train what is missing, then judge every claim."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ltplugins.core.door import guarded
from ltplugins.report.claims import tally
from ltplugins.report.pages.claims import write_claims
from ltplugins.stages.claims.book import Book, Claim, read_book
from ltplugins.stages.claims.cells import (
    Cell,
    Setting,
    num_pairs,
    plan_cells,
    settings_of,
)
from ltplugins.stages.claims.ledger import (
    Ledger,
    add_cells,
    is_known,
    read_ledger,
    write_ledger,
)
from ltplugins.stages.claims.train import (
    ROOT,
    Teller,
    collect,
    parser_of,
    setting_of,
    teller,
    train,
    whole,
)
from ltplugins.stages.claims.verdicts import judge, judge_tails

FILE, OUT = "scripts/sweep/claims.yaml", "zoo/results"
_EPILOG = """The same command again trains what is missing, and nothing else. Further words are
those of a pretraining: precision=bf16-mixed. Cells on other devices or with other words lie in
folders of their own, and are compared among themselves alone.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/claims.py``."""
    options = parser().parse_args(arguments)
    guarded(lambda: claims(options))


def claims(options: argparse.Namespace) -> None:
    """Run the missing cells of the chosen claims, then judge all claims by what there is.

    Raises:
        UserError: a wrong file, name or word, before anything is trained.
        SystemExit: with 1 where a cell has failed, 143 where a signal has ended the call.
    """
    book = read_book(options.file)
    setting = setting_of(options)
    chosen = book.chosen(options.only)
    cells = plan_cells(book, chosen, setting)
    for cell in cells:
        cell.require_same()
    ledger = read_ledger(_out(options))
    add_cells(ledger, cells, setting)
    missing = _missing(cells, ledger, setting)
    for cell in missing:
        if cell.of is not None:
            cell.of.require_weights()
    if options.list:
        _list(book, chosen, missing, setting)
        return
    tell = teller(stderr=True)
    tell(f"{len(missing)} of {len(cells)} cells are missing in {setting.folder}")
    code = train(missing, setting, options, tell) if missing and options.limit != 0 else 0
    if options.collect:  # first: whoever has set a limit may end the call soon after it
        collect(cells, Path(options.root), Path(options.collect), tell)
    _judge(book, options, tell)
    if code:
        raise SystemExit(code)


def _out(options: argparse.Namespace) -> Path:
    """Where the results go: those of a trial, or of other cells, beside the cells."""
    if options.out is not None:
        return Path(options.out)
    is_the_real_one = (options.root, options.file, options.epochs) == (ROOT, FILE, None)
    return Path(OUT if is_the_real_one else options.root)


def _missing(cells: Sequence[Cell], ledger: Ledger, setting: Setting) -> list[Cell]:
    """Cells without numbers, and those whose weights one of them needs."""
    unknown = {cell.name: cell for cell in cells if not is_known(ledger, cell, setting)}
    first = {c.of.name for c in unknown.values() if c.of is not None and not c.of.has_weights}
    return [cell for cell in cells if cell.name in unknown or cell.name in first]


def _judge(book: Book, options: argparse.Namespace, tell: Teller) -> None:
    """Add to the ledger whatever is done in the folder, and write the verdicts."""
    out = _out(options)
    ledger = read_ledger(out)  # anew: training takes hours, in which lines may have come
    for setting in settings_of(Path(options.root)):
        one = replace(setting, epochs=options.epochs)
        add_cells(ledger, plan_cells(book, book.claims, one), one)
    write_ledger(ledger, out)
    rows = judge(book, ledger, options.epochs)
    path = write_claims(rows, out, judge_tails(book, ledger, options.epochs))
    tell(f"{tally(rows)} {path}")


def _list(book: Book, chosen: Sequence[Claim], missing: Sequence[Cell], setting: Setting) -> None:
    """A line for each claim, then the cells that are missing."""
    tell = teller(stderr=False)
    names = {cell.name for cell in missing}
    for claim in chosen:
        own = plan_cells(book, [claim], setting)
        done = sum(cell.name not in names for cell in own)
        pairs = num_pairs(book, claim, setting)
        tell(f"{claim.name}: {done} of {len(own)} cells, {pairs} pairs. {claim.statement}.")
    for cell in missing:
        tell(f"missing: {cell.name}")


def parser() -> argparse.ArgumentParser:
    """The command line of ``scripts/claims.py``."""
    described = "Train and evaluate what the claims need, and judge them."
    found = parser_of("claims", described, _EPILOG)
    add = found.add_argument
    add("--file", default=FILE, help="the claims (%(default)s)")
    add("--out", help=f"folder of the verdicts ({OUT}; of trials and other cells, ROOT)")
    add("--only", nargs="+", metavar="CLAIM", help="these claims")
    add("--pairs", type=whole, metavar="N", help="at most, of each data set")
    add("--epochs", type=whole, metavar="N", help="of the longer side, for a trial")
    add(
        "--limit",
        type=float,
        metavar="SECONDS",
        help="then stop; the same command goes on; 0: judge only",
    )
    add("--list", action="store_true", help="say what is missing, and train nothing")
    return found
