# SPDX-License-Identifier: MIT
"""The report's table on a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ltplugins.report.table import LABELS, METRICS, Cell, RunResult, summarise


def results_table(runs: Sequence[RunResult], title: str = "Accuracy in %") -> Table:
    """Return a rich table of all rows, protocol by protocol, that fits 80 columns."""
    sections = summarise(runs)
    title = f"{title}, {sections[0].rule} groups"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for metric in METRICS:
        table.add_column(LABELS[metric], justify="right", no_wrap=True)
    for section in sections:
        table.add_row(f"[bold]{section.protocol}[/bold]")
        lines = [(row, False) for row in section.rows]
        lines += [(row, True) for row in section.differences]
        for i, (row, signed) in enumerate(lines):
            cells = [_marked(row.cells[metric], signed) for metric in METRICS]
            count = f" (n={row.num_runs})" if row.num_runs > 1 else ""
            last = i == len(lines) - 1
            style = "dim" if signed else None
            table.add_row(f"  {row.name}{count}", *cells, style=style, end_section=last)
    return table


def _marked(cell: Cell, signed: bool) -> str:
    return f"[bold]{cell.text(signed)}[/bold]" if cell.best else cell.text(signed)
