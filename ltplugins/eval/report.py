# SPDX-License-Identifier: MIT
"""Compare runs in one self-contained ``report.html`` and the same in ``report.md``."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from ltplugins import __version__, files
from ltplugins.eval import page, style
from ltplugins.eval.figures import (
    MAX_CURVES,
    NAMED_CLASSES,
    curve_names,
    draw_counts,
    draw_curves,
    draw_groups,
    draw_rank,
)
from ltplugins.eval.groups import RULES
from ltplugins.eval.scatter import MAX_PANELS, draw_scatter
from ltplugins.eval.summary import (
    LABELS,
    METRICS,
    Cell,
    Row,
    RunResult,
    Section,
    common_rule,
    group_runs,
    spread_note,
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
    """Write ``report.html``, ``report.md`` and ``figures/*.png`` into ``out_dir``.

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
    files.write_text(out_dir / "report.md", _markdown(title, results, sections, pictures))
    path = out_dir / "report.html"
    files.write_text(path, _html(title, results, sections, pictures))
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
        add("groups.png", "Shot groups", GROUPS_CAPTION, draw_groups(sections))
        caption = RANK_CAPTION
        if len(runs[0].class_counts) > NAMED_CLASSES:
            caption += " Dots are classes, the line is a moving average over neighbouring ranks."
        elif any(len(members) > 1 for members in rows.values()):
            caption += " The band is ± one standard deviation over runs."
        add("rank.png", "Accuracy against class rank", caption, draw_rank(sections, rows, rule))
        add("counts.png", "The training split", _counts_caption(runs), draw_counts(runs[0], rule))
        more = len(curve_names(rows)) - MAX_CURVES
        caption = CURVES_CAPTION + (f" {more} more were logged." if more > 0 else "")
        add("curves.png", "Training curves", caption, draw_curves(rows))
        add("scatter.png", "Test features", _scatter_caption(runs), draw_scatter(runs, rule))
    return pictures


GROUPS_CAPTION = (
    "Compare the few-shot bars first: a method for long tails should raise them without lowering "
    "the many-shot ones. Error bars are the ± of the table; where bars overlap within them, the "
    "data do not tell the rows apart."
)
RANK_CAPTION = (
    "Classes from the largest to the smallest in training. A method that serves the tail lies "
    "higher on the right. Single classes also differ in how hard they are, whatever their count."
)
CURVES_CAPTION = (
    "Losses of different methods are different quantities: compare their course, not their level."
)


def _counts_caption(runs: Sequence[RunResult]) -> str:
    counts = sorted(runs[0].class_counts, reverse=True)
    ratio = f"{counts[0] / counts[-1]:,.0f} times" if counts[-1] else "infinitely many times"
    text = (
        f"{sum(counts):,} training images in {len(counts)} classes; the largest class has {ratio} "
        "the images of the smallest."
    )
    if len({tuple(run.class_counts) for run in runs}) > 1:
        text += f" Shown for {runs[0].name}; other runs give other classes these counts."
    return text


def _scatter_caption(runs: Sequence[RunResult]) -> str:
    shown = [run for run in runs if run.embedding is not None]
    methods = sorted({run.embedding_method for run in shown} - {""})
    text = f"Test images in two dimensions{' by ' + ', '.join(methods) if methods else ''}. "
    text += (
        "Look at whether the triangles (few-shot classes, bold names) form groups of their own or "
        "dissolve into others. Distances between far groups mean nothing."
    )
    more = len(shown) - MAX_PANELS
    return text + (f" {more} more runs are not shown." if more > 0 else "")


def _lead(runs: Sequence[RunResult], sections: Sequence[Section]) -> str:
    num_rows = len(sections[0].rows)
    sizes = runs[0].results["sizes"]
    plural = "s" if len(runs) > 1 else ""
    what = f"{len(runs)} run{plural}" + (f" of {num_rows} kinds" if num_rows < len(runs) else "")
    return (
        f"{what}, {len(runs[0].class_counts)} classes, {sizes['train']:,} training images, "
        f"scored on {sizes['test']:,} test images."
    )


def _reading(sections: Sequence[Section]) -> str:
    text = (
        "Top-1 accuracy in %; group std in percentage points, lower is more even. "
        f"{spread_note(sections)} A number is bold only where it leads every other row by more "
        "than the ± of either."
    )
    if any(section.differences for section in sections):
        text += (
            " Lines in italics are differences, taken pair by pair between runs on the same split "
            "and seed, then averaged: what all runs share cancels out."
        )
    return text


def small_print(runs: Sequence[RunResult], sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Return (name, text) pairs that say what the numbers are; what differs is listed by run."""
    rule = sections[0].rule
    rows = [(section.protocol, section.description) for section in sections]
    seeds = {name: e["seeds"] for name, e in runs[0].results["protocols"].items() if e["seeds"]}
    shared = {tuple(value) for value in seeds.values()}
    if len(shared) == 1:
        rows.append(("probe seeds", ", ".join(map(str, shared.pop()))))
    rows.append(("groups", f"{rule}: {RULES.get(rule, rule)}; always by training images"))
    rows.append(("group accuracy", "over the test images of the group's classes"))
    rows.append(("group std", "population standard deviation of many, medium, few"))
    for key in dict.fromkeys(key for run in runs for key in run.info):
        values = {run.name: run.info.get(key, "unknown") for run in runs}
        if len(set(values.values())) == 1:
            rows.append((key, next(iter(values.values()))))
        else:
            rows.append((key, "; ".join(f"{name}: {value}" for name, value in values.items())))
    rows.append(("report by", f"ltplugins {__version__}"))
    return rows


def _notes(runs: Sequence[RunResult]) -> list[str]:
    return list(dict.fromkeys(note for run in runs for note in run.results.get("notes", [])))


def _count(row: Row) -> str:
    return f"n = {row.num_runs}" if row.num_runs > 1 else ""


def _html(
    title: str, runs: Sequence[RunResult], sections: list[Section], pictures: list[Picture]
) -> str:
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(_lead(runs, sections))}</p>']
    parts.append(_html_table(sections))
    parts.append(f'<p class="note">{escape(_reading(sections))}</p>')
    parts += [f'<p class="note">{escape(note)}</p>' for note in _notes(runs)]
    for picture in pictures:
        parts.append(f"<h2>{escape(picture.heading)}</h2>")
        parts.append(page.figure(picture.svg, picture.caption))
    parts.append("<h2>What the numbers are</h2>")
    parts.append(page.definitions(small_print(runs, sections)))
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


def _html_cells(row: Row, chip: str, signed: bool) -> str:
    count = f'<span class="runs">{_count(row)}</span>' if row.num_runs > 1 else ""
    cells = [f"<td>{chip}{escape(row.name)}{count}</td>"]
    for metric in METRICS:
        cell = row.cells[metric]
        mean, _, spread = cell.text(signed).partition(" ± ")
        tail = f'<span class="pm">± {spread}</span>' if spread else ""
        best = ' class="best"' if cell.best else ""
        cells.append(f"<td{best}>{mean}{tail}</td>")
    return "".join(cells)


def _markdown(
    title: str, runs: Sequence[RunResult], sections: list[Section], pictures: list[Picture]
) -> str:
    lines = [f"# {title}", "", _lead(runs, sections), "", _reading(sections)]
    for note in _notes(runs):
        lines += ["", note]
    for section in sections:
        lines += ["", f"## {section.protocol}", "", section.description + ".", ""]
        lines += markdown_table(section)
    for picture in pictures:
        lines += ["", f"## {picture.heading}", ""]
        lines += [f"![{picture.heading}](figures/{picture.name})", "", picture.caption]
    lines += ["", "## What the numbers are", "", "| | |", "|---|---|"]
    lines += [f"| {_plain(k)} | {_plain(v)} |" for k, v in small_print(runs, sections)]
    return "\n".join(lines) + "\n"


def markdown_table(section: Section) -> list[str]:
    """Return the lines of one protocol's Markdown table."""
    lines = ["| run | " + " | ".join(LABELS[m] for m in METRICS) + " |"]
    lines.append("|---|" + "---:|" * len(METRICS))
    for signed, rows in ((False, section.rows), (True, section.differences)):
        for row in rows:
            count = f" ({_count(row)})" if row.num_runs > 1 else ""
            cells = [_markdown_cell(row.cells[metric], signed) for metric in METRICS]
            lines.append(f"| {_plain(row.name)}{count} | " + " | ".join(cells) + " |")
    return lines


def _markdown_cell(cell: Cell, signed: bool) -> str:
    return f"**{cell.text(signed)}**" if cell.best else cell.text(signed)


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
