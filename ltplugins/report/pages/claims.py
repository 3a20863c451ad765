# SPDX-License-Identifier: MIT
"""The claims' verdicts as ``claims.md``, ``claims.csv`` and a page, ``claims.html``."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from ltplugins.core.files import write_text
from ltplugins.report import style
from ltplugins.report.claims import ClaimRow, claims_csv, draw_claims, reading, tally
from ltplugins.report.pages import html as page

TITLE = "What the papers claim"
_SHOWN = ("measure", "verdict", "effect", "interval", "p", "n", "ours", "base", "steps", "time")
_CAPTION = (
    "Each line is a claim by one measure. Right of 0, the paper's arm is ahead. Where a line "
    "crosses 0, the pairs do not tell."
)


def write_claims(rows: Sequence[ClaimRow], folder: str | Path) -> Path:
    """Write the three files; the same rows give the same bytes.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    write_text(folder / "claims.csv", claims_csv(rows))
    write_text(folder / "claims.md", _markdown(rows))
    path = folder / "claims.html"
    write_text(path, _html(rows))
    return path


def _blocks(rows: Sequence[ClaimRow]) -> list[tuple[str, str, list[dict[str, str]]]]:
    """For each claim on each device: its sentence, what it is of, and its lines."""
    found = []
    for _, block in groupby(rows, lambda row: (row.claim, row.device, row.settings)):
        members = list(block)
        row = members[0]
        parts = [row.paper, f"{row.data}, at equal {row.equal}, epochs {row.cells()['epochs']}"]
        parts += [text for text in (row.device, row.settings) if text]
        found.append((f"{row.claim}: {row.statement}", "; ".join(parts), _lines(members)))
    return found


def _lines(rows: Sequence[ClaimRow]) -> list[dict[str, str]]:
    lines = []
    for row in rows:
        cells = row.cells()
        cells["n"] = f"{cells['n']} of {cells['pairs']}"
        cells["interval"] = "n/a" if row.found.low is None else f"{cells['low']} to {cells['high']}"
        lines.append({name: cells[name] for name in _SHOWN})
    return lines


def _markdown(rows: Sequence[ClaimRow]) -> str:
    lines = [f"# {TITLE}", "", tally(rows)]
    for text in reading():
        lines += ["", text]
    for head, about, table in _blocks(rows):
        lines += ["", f"## {head}", "", f"{about}.", "", f"| {' | '.join(_SHOWN)} |"]
        lines.append("|" + "---|" * len(_SHOWN))
        for line in table:
            cells = {**line, "verdict": f"**{line['verdict']}**"}
            lines.append(f"| {' | '.join(cells.values())} |")
    return "\n".join(lines) + "\n"


def _html(rows: Sequence[ClaimRow]) -> str:
    parts = [f"<h1>{TITLE}</h1>", f'<p class="lead">{escape(tally(rows))}</p>']
    parts += [f'<p class="note">{escape(text)}</p>' for text in reading()]
    with style.theme("ltplugins"):
        figure = draw_claims(rows)
        if figure is not None:
            parts.append(page.figure(style.as_svg(figure, "claims"), _CAPTION))
    head = "".join(f"<th>{name}</th>" for name in _SHOWN)
    lines = []
    for title, about, table in _blocks(rows):
        lines.append(
            f'<tr><th class="protocol" colspan="{len(_SHOWN)}"><b>{escape(title)}</b>'
            f"{escape(about)}</th></tr>"
        )
        lines += [
            "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in line.values()) + "</tr>"
            for line in table
        ]
    parts.append(
        f'<div class="scroll"><table class="results"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
    return page.page(TITLE, "\n".join(parts))
