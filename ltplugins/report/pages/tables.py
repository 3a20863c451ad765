# SPDX-License-Identifier: MIT
"""The tables of a report as HTML and as Markdown: the same numbers in the same order.

In HTML a table stands in the page once for each order of its rows, and CSS shows the one that is
chosen: it is sorted without a script.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from ltplugins.core.markdown import plain
from ltplugins.report.cells import LABELS, LOWER_IS_BETTER, Cell, Row, Section
from ltplugins.report.more import MORE, READING

# On a telephone the first columns are seen without a finger's work.
ORDER = ("few", "medium", "many", "overall", "balanced", "group_std")
_LISTED = "listed"


def html_tables(sections: Sequence[Section]) -> str:
    """All protocols' tables, each with its heading and the choice of its order."""
    return "\n".join(_html_section(section, k) for k, section in enumerate(sections))


def _html_section(section: Section, place: int) -> str:
    choices, tables = [], []
    deltas = dict(
        zip([_minuend(row) for row in section.differences], section.differences, strict=True)
    )
    several = len(section.rows) > 1
    for key in (_LISTED, *ORDER) if several else (_LISTED,):
        label = "as listed" if key == _LISTED else LABELS[key]
        checked = " checked" if key == _LISTED else ""
        choices.append(
            f'<label><input type="radio" name="sort{place}" class="by-{key}"{checked}> '
            f"{label}</label>"
        )
        rows = section.rows if key == _LISTED else sorted(section.rows, key=_by(key))
        tables.append(_table(section, rows, deltas, key))
    hidden = "" if several else " hidden"
    return (
        f"<h3>{escape(section.protocol)}</h3>\n"
        f'<div class="sort"><fieldset{hidden}><legend>Sorted by</legend>{"".join(choices)}'
        f'</fieldset><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(section.protocol)}">{"".join(tables)}</div></div>'
    )


def _by(metric: str) -> Callable[[Row], float]:
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def key(row: Row) -> float:
        mean = row.cells[metric].mean
        return float("inf") if mean is None else sign * mean

    return key


def _minuend(row: Row) -> str:
    return row.name.rpartition(" \N{MINUS SIGN} ")[0]


def _table(section: Section, rows: Sequence[Row], deltas: Mapping[str, Row], key: str) -> str:
    heads = []
    for metric in ORDER:
        order = "ascending" if metric in LOWER_IS_BETTER else "descending"
        sort = f' aria-sort="{order}"' if metric == key else ""
        heads.append(f'<th scope="col"{sort}>{LABELS[metric]}</th>')
    body = []
    for row in rows:
        cells = [_html_cell(row.cells[m], _delta(deltas.get(row.name), m)) for m in ORDER]
        body.append(f"<tr>{_row_head(row)}{''.join(cells)}</tr>")
    return (
        f'<table class="results by-{key}">'
        f"<caption><span>{escape(section.description)}</span></caption>"
        f'<thead><tr><th scope="col">run</th>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _delta(row: Row | None, metric: str) -> str:
    if row is None or row.cells[metric].mean is None:
        return ""
    return f'<span class="delta">{row.cells[metric].text(signed=True)}</span>'


def _row_head(row: Row) -> str:
    count = f'<span class="runs">{count_of(row)}</span>' if row.num_runs > 1 else ""
    return f'<th scope="row">{escape(row.name)}{count}</th>'


def _html_cell(cell: Cell, below: str = "") -> str:
    mean, _, spread = cell.text().partition(" ± ")
    tail = f'<span class="pm">± {spread}</span>' if spread else ""
    best = ' class="best"' if cell.best else ""
    return f"<td{best}><b>{mean}</b>{tail}{below}</td>"


def html_more(more: Mapping[str, Sequence[Row]]) -> str:
    """The further numbers of each protocol, behind a fold; nothing where there are none."""
    if not more:
        return ""
    head = "".join(f'<th scope="col">{label}</th>' for label in MORE.values())
    parts = []
    for protocol, rows in more.items():
        lines = [
            f"<tr>{_row_head(row)}{''.join(_html_cell(row.cells[m]) for m in MORE)}</tr>"
            for row in rows
        ]
        parts.append(
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(protocol)}, more">'
            f'<table class="results"><caption><span>{escape(protocol)}</span></caption>'
            f'<thead><tr><th scope="col">run</th>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )
    return (
        "<details><summary>Harmonic mean, worst class, calibration</summary>"
        f'<p class="note">{escape(READING)}</p>{"".join(parts)}</details>'
    )


def count_of(row: Row) -> str:
    """Over how many runs a row is averaged; nothing for one."""
    return f"n = {row.num_runs}" if row.num_runs > 1 else ""


def markdown_table(section: Section) -> list[str]:
    """Return the lines of one protocol's Markdown table."""
    lines = ["| run | " + " | ".join(LABELS[m] for m in ORDER) + " |"]
    lines.append("|---|" + "---:|" * len(ORDER))
    for signed, rows in ((False, section.rows), (True, section.differences)):
        for row in rows:
            cells = [_markdown_cell(row.cells[metric], signed) for metric in ORDER]
            lines.append(f"| {_counted(row)} | " + " | ".join(cells) + " |")
    return lines


def markdown_more(more: Mapping[str, Sequence[Row]]) -> list[str]:
    """The further numbers as Markdown."""
    if not more:
        return []
    lines = ["", "## Harmonic mean, worst class, calibration", "", READING]
    for protocol, rows in more.items():
        lines += ["", f"### {plain(protocol)}", "", f"| run | {' | '.join(MORE.values())} |"]
        lines.append("|---|" + "---:|" * len(MORE))
        for row in rows:
            cells = [_markdown_cell(row.cells[m], False) for m in MORE]
            lines.append(f"| {_counted(row)} | {' | '.join(cells)} |")
    return lines


def _counted(row: Row) -> str:
    """A row's name in Markdown, with its number of runs."""
    return plain(row.name) + (f" ({count_of(row)})" if row.num_runs > 1 else "")


def _markdown_cell(cell: Cell, signed: bool) -> str:
    return f"**{cell.text(signed)}**" if cell.best else cell.text(signed)
