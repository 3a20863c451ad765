# SPDX-License-Identifier: MIT
"""The page of segmentations: a table of mIoU, IoU by class, and images with their masks.

Legend: C classes.
"""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ltplugins import __version__
from ltplugins.core import files
from ltplugins.core.errors import UserError
from ltplugins.core.markdown import plain
from ltplugins.report import style
from ltplugins.report.masks import draw_class_iou, draw_masks
from ltplugins.report.pages import html as page

MAX_ROWS = 4  # whose pictures are shown
_READING = (
    "In %. mIoU is the mean over classes of intersection over union, from one confusion matrix of "
    "all test pixels. Rare, common and frequent are thirds of the classes by training counts: of "
    "the images that a class is in, and of its pixels. ± is the sample standard deviation over "
    "runs that differ in their seed alone."
)
_MASKS = (
    "At the right of each example rare classes alone: what was found, and in red what was missed. "
    "Examples are chosen by the truth: those with most pixels of the rarest classes come first."
)
_IOU = "Look at the right: rare classes have few pixels to learn from. n/a: no test pixel."


@dataclass
class MaskRun:
    """One finished segmentation.

    Attributes:
        name: its folder.
        row: what it is, without the seed: runs that share it are repetitions.
        numbers: by column, as fractions; None = n/a.
        per_class: Float[C], IoU; None = no test pixel.
        pixel_counts: Int[C], of the training masks.
        members: frequent, common and rare by pixels, class ids.
        examples: image uint8 [H W 3], truth and prediction uint8 [H W].
        info: what says what the numbers are.
        notes: what a reader must know.
    """

    name: str
    row: str
    seed: int
    numbers: dict[str, float | None]
    class_names: list[str]
    per_class: list[float | None]
    pixel_counts: list[int]
    members: dict[str, list[int]]
    examples: Sequence[Any] = ()
    info: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def mask_rows(runs: Sequence[MaskRun]) -> dict[str, list[MaskRun]]:
    """The runs of each row; where two of a row have one seed, each run is a row of its own.

    Raises:
        UserError: runs of different classes.
    """
    first = runs[0]
    for run in runs:
        if run.class_names != first.class_names:
            raise UserError(
                f"segmentations of one report need the same classes, got {len(first.class_names)} "
                f"in {first.name} and others, {len(run.class_names)}, in {run.name}."
            )
    rows: dict[str, list[MaskRun]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    for name, members in list(rows.items()):
        if len({run.seed for run in members}) < len(members):
            del rows[name]
            rows |= {f"{name} ({run.name})": [run] for run in members}
    return rows


def write_mask_report(runs: Sequence[MaskRun], out: Path, title: str) -> Path:
    """Write ``report.html``, ``report.md``, ``numbers.csv`` and ``figures/*.png``.

    Args:
        runs: one or more.
        out: folder, made if missing.
        title: of the page.

    Returns:
        The path of ``report.html``.

    Raises:
        UserError: see :func:`mask_rows`.
    """
    rows = mask_rows(runs)
    pictures = _draw(rows, out / "figures")
    table = [(name, [_cell(members, key) for key in runs[0].numbers])
             for name, members in rows.items()]  # fmt: skip
    head = ["", *runs[0].numbers]
    files.write_text(out / "numbers.csv", _csv(runs))
    lead = f"{len(runs)} segmentation{'s' * (len(runs) > 1)}, {len(runs[0].class_names)} classes."
    notes = list(dict.fromkeys(note for run in runs for note in run.notes))
    lines = [f"# {plain(title)}", "", lead, ""]
    lines += [f"| {' | '.join(map(plain, head))} |", "|---" * len(head) + "|"]
    lines += [f"| {plain(name)} | {' | '.join(cells)} |" for name, cells in table]
    lines += ["", _READING, *(f"\n{plain(note)}" for note in notes)]
    for file, heading, caption, _ in pictures:
        named = plain(heading)
        lines += ["", f"## {named}", "", f"![{named}](figures/{file})", "", plain(caption)]
    files.write_text(out / "report.md", "\n".join(lines) + "\n")
    body = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(lead)}</p>']
    body.append(_html_table(head, table))
    body += [f'<p class="note">{escape(text)}</p>' for text in (_READING, *notes)]
    for _, heading, caption, svg in pictures:
        body += [f"<h2>{escape(heading)}</h2>", page.figure(svg, caption)]
    body += ["<h2>What the numbers are</h2>", page.definitions(_small_print(runs))]
    files.write_text(out / "report.html", page.page(title, "\n".join(body)))
    return out / "report.html"


def _cell(members: Sequence[MaskRun], key: str) -> str:
    known = [value for run in members if (value := run.numbers[key]) is not None]
    if not known:
        return "n/a"
    spread = f" ± {100 * statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{100 * statistics.fmean(known):.1f}{spread}"


def _draw(rows: Mapping[str, list[MaskRun]], folder: Path) -> list[tuple[str, str, str, str]]:
    """File, heading, caption and SVG of each picture; of a row those of its first run."""
    found = []
    more = f" Of {len(rows)} rows the first {MAX_ROWS}." if len(rows) > MAX_ROWS else ""
    with style.theme("segmentation"):
        for i, (name, members) in enumerate(list(rows.items())[:MAX_ROWS]):
            run, end = members[0], f": {name}" if len(rows) > 1 else ""
            figure = draw_class_iou(run.per_class, run.pixel_counts, run.members, run.class_names)
            file = f"iou-{i}.png"
            svg = style.save(figure, folder / file)
            found.append((file, f"IoU by class{end}", _IOU + more, svg))
            if run.examples:
                figure = draw_masks(run.examples, run.class_names, run.members["rare"])
                file = f"masks-{i}.png"
                svg = style.save(figure, folder / file)
                found.append((file, f"Images and masks{end}", _MASKS + more, svg))
    return found


def _html_table(head: Sequence[str], table: Sequence[tuple[str, list[str]]]) -> str:
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for name, cells in table
    ]
    return (
        f'<div class="scroll" tabindex="0"><table class="results many">'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _small_print(runs: Sequence[MaskRun]) -> list[tuple[str, str]]:
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.info):
        names: dict[str, list[str]] = {}
        for run in runs:
            names.setdefault(run.info.get(key, "unknown"), []).append(run.name)
        told = [value if len(names) == 1 else f"{value} ({', '.join(of)})"
                for value, of in names.items()]  # fmt: skip
        rows.append((key, "; ".join(told)))
    return [*rows, ("report by", f"ltplugins {__version__}")]


def _csv(runs: Sequence[MaskRun]) -> str:
    buffer = io.StringIO()
    out = csv.writer(buffer, lineterminator="\n")
    out.writerow(["row", "run", "seed", "number", "value"])
    for run in runs:
        named = {**run.numbers, **{f"IoU {name}": value for name, value in
                                   zip(run.class_names, run.per_class, strict=True)}}  # fmt: skip
        for key, value in named.items():
            out.writerow([run.row, run.name, run.seed, key, "" if value is None else value])
    return buffer.getvalue()
