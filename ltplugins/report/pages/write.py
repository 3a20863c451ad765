# SPDX-License-Identifier: MIT
"""Compare runs in one self-contained ``report.html`` and the same in ``report.md``."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from ltplugins.core import files
from ltplugins.report import health, style, words
from ltplugins.report.figures import draw_counts, draw_curves, draw_groups, draw_rank
from ltplugins.report.more import MORE, READING, more_numbers, numbers_csv
from ltplugins.report.pages import html as page
from ltplugins.report.pages.markdown import plain
from ltplugins.report.scatter import draw_scatter
from ltplugins.report.sureness import draw_confusion, draw_reliability
from ltplugins.report.table import (
    LABELS,
    METRICS,
    Cell,
    Row,
    RunResult,
    Section,
    common_rule,
    group_runs,
    summarise,
)


@dataclass
class Picture:
    """A drawn figure: its file under ``figures/``, heading, caption and SVG."""

    name: str
    heading: str
    caption: str
    svg: str


def write_report(
    results: Sequence[RunResult], out_dir: str | Path, title: str = "Who wins where"
) -> Path:
    """Write ``report.html``, ``report.md``, ``numbers.csv`` and ``figures/*.png``.

    The HTML file stands alone: it may be mailed or moved. The Markdown refers to ``figures/``.

    Args:
        results: the runs; those with one ``group_key`` become one row.
        out_dir: made if missing; files of an earlier report are replaced.
        title: the page's heading.

    Returns:
        The path of ``report.html``.

    Raises:
        UserError: runs that cannot be compared (see `group_runs` and `common_rule`).
    """
    out_dir = Path(out_dir)
    rows = group_runs(results)
    rule = common_rule(results)
    sections = summarise(results)
    pictures = _draw(results, rows, sections, rule, out_dir / "figures")
    files.write_text(out_dir / "numbers.csv", numbers_csv(rows, sections))
    more = {section.protocol: more_numbers(rows, section) for section in sections}
    more = {name: table for name, table in more.items() if table}
    files.write_text(out_dir / "report.md", _markdown(title, results, sections, pictures))
    path = out_dir / "report.html"
    files.write_text(path, _html(title, results, sections, pictures, more))
    return path


def _draw(
    runs: Sequence[RunResult],
    rows: dict[str, list[RunResult]],
    sections: list[Section],
    rule: str,
    folder: Path,
) -> list[Picture]:
    """Draw and save every picture that the runs have data for."""
    pictures: list[Picture] = []

    def add(name: str, heading: str, caption: str, figure: Figure | None) -> None:
        if figure is not None:
            pictures.append(Picture(name, heading, caption, style.save(figure, folder / name)))

    with style.theme("ltplugins"):
        add("groups.png", "Shot groups", words.GROUPS_CAPTION, draw_groups(sections))
        add("curves.png", "Training curves", words.curves_caption(rows), draw_curves(rows))
        add("health.png", "Health of the features", health.CAPTION, health.draw_health(rows))
        if not all(any(run.class_counts) for run in runs):
            return pictures  # of a training without labels nobody knows what is rare in it
        caption = words.rank_caption(rows)
        add("rank.png", "Accuracy against class rank", caption, draw_rank(sections, rows, rule))
        caption = words.counts_caption(runs)
        add("counts.png", "The training split", caption, draw_counts(runs[0], rule))
        caption = words.sureness_caption(rows)
        add("reliability.png", "How sure they are", caption, draw_reliability(rows, rule))
        caption = words.CONFUSION_CAPTION
        add("confusion.png", "Head and tail mistaken", caption, draw_confusion(rows, rule))
        add("scatter.png", "Test features", words.scatter_caption(runs), draw_scatter(runs, rule))
    return pictures


def _count(row: Row) -> str:
    return f"n = {row.num_runs}" if row.num_runs > 1 else ""


def _html(
    title: str,
    runs: Sequence[RunResult],
    sections: list[Section],
    pictures: list[Picture],
    more: dict[str, list[Row]],
) -> str:
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(words.lead(runs, sections))}</p>',
    ]
    parts.append(_html_table(sections))
    parts.append(f'<p class="note">{escape(words.reading(sections))}</p>')
    parts += [f'<p class="note">{escape(note)}</p>' for note in words.notes(runs)]
    parts += [_html_more(more)] if more else []
    for picture in pictures:
        parts.append(f"<h2>{escape(picture.heading)}</h2>")
        parts.append(page.figure(picture.svg, picture.caption))
    parts.append("<h2>What the numbers are</h2>")
    parts.append(page.definitions(words.small_print(runs, sections)))
    configs = [run for run in runs if run.config]
    if configs:
        parts.append("<h2>Configurations</h2>")
    parts += [
        f"<details><summary>{escape(run.name)}</summary><pre>{escape(run.config)}</pre></details>"
        for run in configs
    ]
    return page.page(title, "\n".join(parts))


def _html_table(sections: Sequence[Section]) -> str:
    head = "".join(f"<th>{LABELS[metric]}</th>" for metric in METRICS)
    lines = []
    for section in sections:
        lines.append(
            f'<tr><th class="protocol" colspan="{len(METRICS) + 1}">'
            f"<b>{escape(section.protocol)}</b>{escape(section.description)}</th></tr>"
        )
        for i, row in enumerate(section.rows):
            chip = f'<span class="chip" style="background:{style.series(i)}"></span>'
            lines.append(f"<tr>{_html_cells(row, chip, False)}</tr>")
        for row in section.differences:
            lines.append(f'<tr class="difference">{_html_cells(row, "", True)}</tr>')
    return (
        f'<div class="scroll"><table class="results"><thead><tr><th>run</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _html_more(more: dict[str, list[Row]]) -> str:
    head = "".join(f"<th>{label}</th>" for label in MORE.values())
    lines = []
    for protocol, rows in more.items():
        name = f'<th class="protocol" colspan="{len(MORE) + 1}"><b>{escape(protocol)}</b></th>'
        lines.append(f"<tr>{name}</tr>")
        lines += [f"<tr>{_html_cells(row, '', False, tuple(MORE))}</tr>" for row in rows]
    return (
        "<details><summary>Balanced accuracy, worst class, calibration</summary>"
        f'<p class="note">{escape(READING)}</p><div class="scroll"><table class="results"><thead>'
        f"<tr><th>run</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></details>"
    )


def _html_cells(row: Row, chip: str, signed: bool, metrics: Sequence[str] = METRICS) -> str:
    count = f'<span class="runs">{_count(row)}</span>' if row.num_runs > 1 else ""
    cells = [f"<td>{chip}{escape(row.name)}{count}</td>"]
    for metric in metrics:
        cell = row.cells[metric]
        mean, _, spread = cell.text(signed).partition(" ± ")
        tail = f'<span class="pm">± {spread}</span>' if spread else ""
        best = ' class="best"' if cell.best else ""
        cells.append(f"<td{best}>{mean}{tail}</td>")
    return "".join(cells)


def _markdown(
    title: str, runs: Sequence[RunResult], sections: list[Section], pictures: list[Picture]
) -> str:
    lead, reading = words.lead(runs, sections), words.reading(sections)
    lines = [f"# {plain(title)}", "", plain(lead), "", plain(reading)]
    for note in words.notes(runs):
        lines += ["", plain(note)]
    for section in sections:
        lines += ["", f"## {plain(section.protocol)}", "", plain(section.description) + ".", ""]
        lines += markdown_table(section)
    for picture in pictures:
        heading = plain(picture.heading)
        lines += ["", f"## {heading}", ""]
        lines += [f"![{heading}](figures/{picture.name})", "", plain(picture.caption)]
    lines += ["", "## What the numbers are", "", "| | |", "|---|---|"]
    lines += [f"| {plain(k)} | {plain(v)} |" for k, v in words.small_print(runs, sections)]
    return "\n".join(lines) + "\n"


def markdown_table(section: Section) -> list[str]:
    """Return the lines of one protocol's Markdown table."""
    lines = ["| run | " + " | ".join(LABELS[m] for m in METRICS) + " |"]
    lines.append("|---|" + "---:|" * len(METRICS))
    for signed, rows in ((False, section.rows), (True, section.differences)):
        for row in rows:
            count = f" ({_count(row)})" if row.num_runs > 1 else ""
            cells = [_markdown_cell(row.cells[metric], signed) for metric in METRICS]
            lines.append(f"| {plain(row.name)}{count} | " + " | ".join(cells) + " |")
    return lines


def _markdown_cell(cell: Cell, signed: bool) -> str:
    return f"**{cell.text(signed)}**" if cell.best else cell.text(signed)
