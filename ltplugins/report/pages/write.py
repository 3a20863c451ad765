# SPDX-License-Identifier: MIT
"""Compare runs, or describe one, in a self-contained ``report.html`` and the same in ``report.md``.

The page answers first: who leads, by how much, and whether that can be told from chance.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ltplugins.core import files
from ltplugins.core.markdown import plain
from ltplugins.report import words
from ltplugins.report.cells import Row
from ltplugins.report.compare import (
    ALONE,
    MEASURES,
    Answer,
    answer,
    caution,
    choose_baseline,
    families,
    in_words,
    sides,
)
from ltplugins.report.evaluated import RunResult, common_rule, group_runs
from ltplugins.report.more import more_numbers, numbers_csv
from ltplugins.report.pages import html as page
from ltplugins.report.pages.exhibits import Exhibit, exhibits
from ltplugins.report.pages.pictures import Picture, Study, draw_pictures
from ltplugins.report.pages.tables import (
    html_more,
    html_tables,
    markdown_more,
    markdown_table,
)
from ltplugins.report.table import summarise
from ltplugins.report.thumbs import Thumbs

# Images come before the pictures of what they are drawn from.
_AFTER_IMAGES = ("counts", "scatter", "reliability", "curves", "knn", "prior", "health")
More = Mapping[str, Sequence[Row]]


def write_report(
    results: Sequence[RunResult],
    out_dir: str | Path,
    title: str = "Who wins where",
    baseline: str | None = None,
) -> Path:
    """Write ``report.html``, ``report.md``, ``numbers.csv`` and ``figures/*.png``.

    The HTML file stands alone: it may be mailed or moved. The Markdown refers to ``figures/``.

    Args:
        results: the runs; those with one ``group_key`` become one row.
        out_dir: made if missing; files of an earlier report are replaced.
        title: the page's heading.
        baseline: the row that others are compared with; None = the first.

    Returns:
        The path of ``report.html``.

    Raises:
        UserError: runs that cannot be compared (see `group_runs` and `common_rule`), or no row of
            the baseline's name.
    """
    out_dir = Path(out_dir)
    study = make_study(results, baseline)
    thumbs = Thumbs()
    pictures = draw_pictures(study, out_dir / "figures", thumbs)
    shown = exhibits(study, thumbs)
    _remove_old(out_dir / "figures", {picture.name for picture in pictures})
    files.write_text(out_dir / "numbers.csv", numbers_csv(study.rows, study.sections))
    more = {s.protocol: more_numbers(study.rows, s) for s in study.sections}
    more = {name: table for name, table in more.items() if table}
    files.write_text(out_dir / "report.md", _markdown(title, study, pictures, more, shown))
    path = out_dir / "report.html"
    files.write_text(path, _html(title, study, pictures, more, shown, thumbs))
    return path


def make_study(results: Sequence[RunResult], baseline: str | None = None) -> Study:
    """Tables and answers of runs.

    Raises:
        UserError: see `write_report`.
    """
    rows = group_runs(results)
    rule = common_rule(results)
    base = choose_baseline(rows, baseline)
    study = Study(results, rows, summarise(results, base), rule, base)
    for section in study.sections:
        parts = []
        for members, own in families(rows, base):
            found = [answer(members, section.protocol, rule, m, own) for m in MEASURES]
            parts.append([a for a in found if a is not None])
        study.answers[section.protocol] = [part for part in parts if part]
    study.answers = {name: parts for name, parts in study.answers.items() if parts}
    return study


def _remove_old(folder: Path, kept: set[str]) -> None:
    """Pictures of an earlier report here that this one does not show."""
    for path in folder.glob("*.png"):
        if path.name not in kept:
            path.unlink()


def _html(
    title: str,
    study: Study,
    pictures: list[Picture],
    more: More,
    shown: Sequence[Exhibit],
    thumbs: Thumbs,
) -> str:
    forests = [p for p in pictures if p.name.startswith("forest")]
    others = [p for p in pictures if not p.name.startswith("forest")]
    parts: list[tuple[str, str, str]] = []  # id, heading, HTML
    if study.answers:
        parts.append(("answer", "Who leads", _html_answers(study, forests)))
    elif len(study.rows) > 1:
        parts.append(("answer", "Who leads", f"<p>{escape(ALONE)}</p>"))
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in words.notes(study.runs))
    reading = f'<p class="note">{escape(words.reading(study.sections))}</p>'
    tables = html_tables(study.sections) + reading + notes + html_more(more)
    parts.append(("numbers", "All numbers", tables))
    for picture in others:
        parts.append((picture.name.partition(".")[0], picture.heading, _html_figure(picture)))
    at = next((k for k, part in enumerate(parts) if part[0] in _AFTER_IMAGES), len(parts))
    parts[at:at] = [
        (one.name, one.heading, f'{one.html}<p class="note">{escape(one.caption)}</p>')
        for one in shown
    ]
    small = page.definitions(words.small_print(study.runs, study.sections))
    parts.append(("print", "What the numbers are", small))
    configs = [
        f"<details><summary>{escape(run.name)}</summary><pre>{escape(run.config)}</pre></details>"
        for run in study.runs
        if run.config
    ]
    if configs:
        parts.append(("configs", "Configurations", "".join(configs)))
    lead = f'<p class="lead">{escape(words.lead(study.runs, study.sections))}</p>'
    body = [f"<h1>{escape(title)}</h1>", lead, page.contents([part[:2] for part in parts])]
    for name, heading, text in parts:
        body.append(f'<section><h2 id="{name}">{escape(heading)}</h2>\n{text}</section>')
    return page.page(title, thumbs.definitions() + "\n".join(body))


def _html_figure(picture: Picture) -> str:
    titles = [panel.title for panel in picture.plate.panels]
    width = max(panel.width for panel in picture.plate.panels)
    keys = picture.plate.keys
    return page.figure(picture.svgs, picture.caption, picture.finding, titles, keys, width)


def _html_answers(study: Study, forests: Sequence[Picture]) -> str:
    parts = []
    pictures = iter(forests)
    for protocol, told in study.answers.items():
        parts.append(f"<h3>{escape(protocol)}</h3>")
        for answers in told:
            head = words.family(study.rows, answers)
            parts.append(f'<p class="note">{escape(head)}</p>' if head else "")
            lines = "".join(
                f"<dt>{found.measure}</dt><dd>{escape(text)}</dd>"
                for found, text in zip(answers, _told(answers), strict=True)
            )
            parts.append(f'<dl class="answer">{lines}</dl>')
            parts.append(_html_figure(next(pictures)))
    parts.append(f'<p class="note">{escape(_caution(study))}</p>')
    return "\n".join(parts)


def _told(answers: Sequence[Answer]) -> list[str]:
    """A sentence or two for each measure."""
    several = len(answers[0].effects) > 1 and answers[0].pairs > 1
    return [f"{in_words(a)} {sides(a)}" if several else in_words(a) for a in answers]


def _caution(study: Study) -> str:
    return caution([a for told in study.answers.values() for answers in told for a in answers])


def _markdown(
    title: str, study: Study, pictures: list[Picture], more: More, shown: Sequence[Exhibit]
) -> str:
    lines = [f"# {plain(title)}", "", plain(words.lead(study.runs, study.sections))]
    if study.answers:
        lines += ["", "## Who leads"]
        for protocol, told in study.answers.items():
            lines += ["", f"### {plain(protocol)}"]
            for answers in told:
                head = words.family(study.rows, answers)
                lines += ["", plain(head)] if head else []
                texts = zip(answers, _told(answers), strict=True)
                lines += ["", *(f"- **{a.measure}**: {plain(text)}" for a, text in texts)]
        lines += ["", plain(_caution(study))]
    elif len(study.rows) > 1:
        lines += ["", "## Who leads", "", ALONE]
    lines += ["", "## All numbers", "", plain(words.reading(study.sections))]
    for note in words.notes(study.runs):
        lines += ["", plain(note)]
    for section in study.sections:
        lines += ["", f"### {plain(section.protocol)}", "", plain(section.description) + ".", ""]
        lines += markdown_table(section)
    lines += markdown_more(more)
    for picture in pictures:
        alt = plain(f"{picture.heading}: {picture.finding}")
        lines += ["", f"## {plain(picture.heading)}", "", f"![{alt}](figures/{picture.name})"]
        lines += ["", plain(picture.caption)]
    for one in shown:
        lines += ["", f"## {one.heading}", "", *one.markdown, "", plain(one.caption)]
    lines += ["", "## What the numbers are", "", "| | |", "|---|---|"]
    small = words.small_print(study.runs, study.sections)
    lines += [f"| {plain(k)} | {plain(v)} |" for k, v in small]
    return "\n".join(lines) + "\n"
