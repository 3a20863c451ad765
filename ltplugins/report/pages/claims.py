# SPDX-License-Identifier: MIT
"""The claims' verdicts as ``claims.md``, ``claims.csv`` and a page, ``claims.html``."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from ltplugins.core.files import write_text
from ltplugins.core.markdown import plain, table
from ltplugins.report import plates, style
from ltplugins.report.cells import MISSING
from ltplugins.report.claims import (
    ClaimRow,
    TailRow,
    claim_panels,
    claims_csv,
    grouped,
    interval,
    reading,
    reading_of_tails,
    tally,
)
from ltplugins.report.pages import html as page

TITLE = "What the papers claim"
_TAILS = "What the tail costs"
_SHOWN = ("measure", "verdict", "effect", "interval", "p", "n", "ours", "base", "steps", "time")
_CAPTION = (
    "A panel a claim, a line a measure: the mean difference and its 95 % interval. Right of 0, the "
    "first arm has more; the colour is the verdict. Where a line crosses 0, the pairs do not tell; "
    "at a triangle it goes on."
)


Block = tuple[str, str, list[dict[str, str]]]  # a sentence, what it is of, its lines by column


def write_claims(
    rows: Sequence[ClaimRow], folder: str | Path, tails: Sequence[TailRow] = ()
) -> Path:
    """Write the three files; the same rows give the same bytes.

    Args:
        rows: the verdicts; all three files have them.
        folder: of the files.
        tails: what the tail costs each arm, of the text and the page.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    write_text(folder / "claims.csv", claims_csv(rows))
    write_text(folder / "claims.md", _markdown(rows, tails))
    path = folder / "claims.html"
    write_text(path, _html(rows, tails))
    return path


def _overview(rows: Sequence[ClaimRow]) -> list[dict[str, str]]:
    """A line for each claim on each device."""
    return [
        {
            "claim": block[0].claim,
            "what is claimed": block[0].statement,
            "on": " ".join(filter(None, (block[0].device, block[0].settings))) or MISSING,
            "n": f"{block[0].found.n} of {block[0].pairs}",
            "verdicts": "; ".join(_in_short(row) for row in block)
            if block[0].device
            else "unknown: no pair yet",
        }
        for block in grouped(rows)
    ]


def _in_short(row: ClaimRow) -> str:
    effect = "" if row.found.effect is None else f" ({row.cells()['effect']})"
    return f"{row.measure}: {row.verdict}{effect}"


def _blocks(rows: Sequence[ClaimRow]) -> list[Block]:
    """Where there is a pair: the claim's sentence, what it is of, and its lines."""
    found = []
    for block in grouped(rows):
        row = block[0]
        if all(one.found.n == 0 for one in block):
            continue
        parts = [row.paper, f"{row.data}, at equal {row.equal}, epochs {row.cells()['epochs']}"]
        parts += [text for text in (row.device, row.settings) if text]
        found.append((f"{row.claim}: {row.statement}", "; ".join(parts), _lines(block)))
    return found


def _lines(rows: Sequence[ClaimRow]) -> list[dict[str, str]]:
    lines = []
    for row in rows:
        cells = row.cells()
        cells["n"] = f"{cells['n']} of {cells['pairs']}"
        cells["interval"] = interval(row.found)
        lines.append({name: cells[name] for name in _SHOWN})
    return lines


def _blocks_of_tails(tails: Sequence[TailRow]) -> list[Block]:
    """The arms of each data set on each device, with the columns that one of them has."""
    found = []
    for (data, images), members in groupby(tails, lambda row: (row.data, row.images)):
        cells = [row.cells() for row in members]
        columns = dict.fromkeys(name for line in cells for name in line)
        lines = [{name: line.get(name, MISSING) for name in columns} for line in cells]
        found.append((data, images, lines))
    return found


def _markdown(rows: Sequence[ClaimRow], tails: Sequence[TailRow] = ()) -> str:
    lines = [f"# {TITLE}", "", tally(rows), "", *_table([_plain(line) for line in _overview(rows)])]
    for text in reading():
        lines += ["", text]
    for head, about, lines_of in _blocks(rows):
        marked = [{**line, "verdict": f"**{line['verdict']}**"} for line in map(_plain, lines_of)]
        lines += ["", f"## {plain(head)}", "", f"{plain(about)}.", "", *_table(marked)]
    if tails:
        lines += ["", f"## {_TAILS}", "", reading_of_tails()]
    for head, about, lines_of in _blocks_of_tails(tails):
        table_of = _table([_plain(line) for line in lines_of])
        lines += ["", f"### {plain(head)}", "", f"{plain(about)}.", "", *table_of]
    return "\n".join(lines) + "\n"


def _plain(line: dict[str, str]) -> dict[str, str]:
    return {key: plain(text) for key, text in line.items()}


def _table(lines: Sequence[dict[str, str]]) -> list[str]:
    """Of cells that are Markdown already."""
    return table(list(lines[0]), [list(line.values()) for line in lines]).splitlines()


def _html(rows: Sequence[ClaimRow], tails: Sequence[TailRow]) -> str:
    parts = [f"<h1>{TITLE}</h1>", f'<p class="lead">{escape(tally(rows))}</p>']
    parts += [f'<p class="note">{escape(text)}</p>' for text in reading()]
    with style.theme("ltplugins"):
        plate = claim_panels(rows)
        if plate is not None:
            svgs = plates.draw_svgs(plate, "claims")
            titles = [panel.title for panel in plate.panels]
            shown = page.figure(svgs, _CAPTION, tally(rows), titles, plate.keys, 3.9)
            parts.append(shown)
    parts += ["<h2>All claims</h2>", page.table(_overview(rows))]
    if blocks := _blocks(rows):
        parts += ["<h2>Measure by measure</h2>", _results(blocks)]
    if tails:
        parts += [f"<h2>{_TAILS}</h2>", f'<p class="note">{escape(reading_of_tails())}</p>']
        parts += [_results([block]) for block in _blocks_of_tails(tails)]
    return page.page(TITLE, "\n".join(parts))


def _results(blocks: Sequence[Block]) -> str:
    """One table of blocks with the same columns, each under its sentence."""
    columns = list(blocks[0][2][0])
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = []
    for title, about, lines_of in blocks:
        lines.append(
            f'<tr><th scope="colgroup" class="protocol" colspan="{len(columns)}">'
            f"<b>{escape(title)}</b><span>{escape(about)}</span></th></tr>"
        )
        lines += [
            f'<tr><th scope="row">{escape(first)}</th>'
            + "".join(f"<td>{escape(text)}</td>" for text in rest)
            + "</tr>"
            for first, *rest in (line.values() for line in lines_of)
        ]
    return (
        f'<div class="scroll"><table class="results"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
