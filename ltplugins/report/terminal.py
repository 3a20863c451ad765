# SPDX-License-Identifier: MIT
"""The report's table on a terminal or in a log file; numbers are never cut."""

import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ltplugins.core.console import make_console, printable
from ltplugins.report.cells import LABELS, METRICS, Cell, Section
from ltplugins.report.evaluated import RunResult
from ltplugins.report.table import summarise

# What goes into the second of two tables where one would be too wide.
_SECOND = ("few", "group_std")


def show_results(runs: Sequence[RunResult], baseline: str | None = None) -> None:
    """Print all rows, protocol by protocol; as wide as need be where no terminal limits it.

    Differences are to the row called ``baseline``, or to the first.
    """
    console = make_console()
    if not sys.stdout.isatty():
        console.width = max(console.width, width_of(results_table(runs, baseline=baseline)))
    for table in results_tables(runs, console.width, baseline=baseline):
        console.print(table, soft_wrap=False)


def results_table(
    runs: Sequence[RunResult], title: str = "Accuracy in %", baseline: str | None = None
) -> Table:
    """Return a rich table of all rows, protocol by protocol, however wide it is."""
    sections = summarise(runs, baseline)
    return _table(sections, METRICS, f"{title}, {sections[0].rule} groups")


def results_tables(
    runs: Sequence[RunResult],
    width: int,
    title: str = "Accuracy in %",
    baseline: str | None = None,
) -> list[Table]:
    """Return the table, or two with some of its columns each where it is wider than ``width``."""
    sections = summarise(runs, baseline)
    title = f"{title}, {sections[0].rule} groups"
    whole = _table(sections, METRICS, title)
    if width_of(whole) <= width:
        return [whole]
    first = [metric for metric in METRICS if metric not in _SECOND]
    return [_table(sections, first, title), _table(sections, _SECOND, f"{title}, continued")]


def width_of(table: Table) -> int:
    """Columns of text that a table takes where nothing of it is folded."""
    console = make_console()
    console.width = 100_000
    return Measurement.get(console, console.options, table).maximum


def _table(sections: Sequence[Section], metrics: Sequence[str], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    # Only names may be folded, on a terminal that is too narrow even for half of the columns.
    table.add_column("", overflow="fold")
    for metric in metrics:
        table.add_column(LABELS[metric], justify="right", no_wrap=True)
    for section in sections:
        table.add_row(Text(printable(section.protocol), style="bold"))
        lines = [(row, False) for row in section.rows]
        lines += [(row, True) for row in section.differences]
        for i, (row, signed) in enumerate(lines):
            cells = [_marked(row.cells[metric], signed) for metric in metrics]
            count = f" (n={row.num_runs})" if row.num_runs > 1 else ""
            last = i == len(lines) - 1
            style = "dim" if signed else None
            table.add_row(f"  {row.name}{count}", *cells, style=style, end_section=last)
    return table


def _marked(cell: Cell, signed: bool) -> Text:
    return Text(cell.text(signed), style="bold" if cell.best else "")
