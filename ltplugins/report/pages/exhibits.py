# SPDX-License-Identifier: MIT
"""Images on a page: classes, neighbours of rare images, what one row alone gets right, COLT's pool.

Each exhibit stands in the page as pictures and in ``report.md`` as what they say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from ltplugins.core.markdown import plain
from ltplugins.eval.gallery import Gallery
from ltplugins.report.cells import MISSING
from ltplugins.report.evaluated import RunResult
from ltplugins.report.looks import (
    MOST_CLASSES,
    ClassLook,
    alone_right,
    class_looks,
    comparable,
    name_of,
)
from ltplugins.report.pages.pictures import Study
from ltplugins.report.thumbs import Thumbs

_ALONE = 12  # pictures of a row
_POOLS = 3  # rows whose pool is shown


@dataclass(frozen=True)
class Exhibit:
    """A part of the page: its id, its heading, and its two forms."""

    name: str
    heading: str
    caption: str
    html: str
    markdown: list[str]


def exhibits(study: Study, thumbs: Thumbs) -> list[Exhibit]:
    """Every exhibit that the runs have images for."""
    found = [_classes(study, thumbs)]
    runs = comparable(study.rows, study.baseline)
    if runs:
        found += [_neighbours(study, runs, thumbs), _alone(study, runs, thumbs)]
    return [one for one in (*found, _pools(study, thumbs)) if one is not None]


def _classes(study: Study, thumbs: Thumbs) -> Exhibit | None:
    """A strip of all classes; without pictures it is a table, which the page has already."""
    other, protocol = study.best_other, study.sections[0].protocol
    looks, pairs = class_looks(study.rows, protocol, study.rule, study.baseline, other)
    if not any(look.count for look in looks) or not any(len(look.faces) for look in looks):
        return None
    names = [study.baseline, *([other] if other else [])]
    total = len(study.rows[study.baseline][0].class_counts)
    caption = (
        f"By {protocol}, over {pairs} pair{'s' if pairs > 1 else ''} of runs with these counts; "
        "most training images first. Pictures are test images, drawn by chance."
    )
    if other:
        caption += (
            f" Below each class: {study.baseline}, {other}, and in points their difference, bold "
            "where so few test images could not make it by chance (1.96 standard errors, class by "
            "class: of twenty classes one is bold for nothing)."
        )
    if total > MOST_CLASSES:
        caption += f" Of {total} classes the most and the least frequent."
    head = ["class", "group", "training images", *(plain(f"{name} (%)") for name in names)]
    head += ["difference"] * (other is not None)
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    for look in looks:
        cells = [plain(look.name), look.group, f"{look.count:,}", _percent(look.base)]
        cells += [_percent(look.other), _points(look)] if other else []
        lines.append(f"| {' | '.join(cells)} |")
    cards = "".join(_card(look, names, thumbs) for look in looks)
    return Exhibit("classes", "Class by class", caption, f'<ul class="cards">{cards}</ul>', lines)


def _card(look: ClassLook, names: Sequence[str], thumbs: Thumbs) -> str:
    faces = "".join(thumbs.show(face, f"{look.name}, a test image") for face in look.faces)
    told = [f"{escape(names[0])} {_percent(look.base)} %"]
    if len(names) > 1:
        tag = "b" if abs(look.difference or 0.0) > look.reach else "span"
        told += [f"{escape(names[1])} {_percent(look.other)} %", f"<{tag}>{_points(look)}</{tag}>"]
    return (
        f'<li><div class="faces">{faces}</div><strong>{escape(look.name)}</strong>'
        f"<small>{look.group}, {look.count:,} training images</small>"
        f"<small>{'<br>'.join(told)}</small></li>"
    )


def _neighbours(study: Study, runs: Mapping[str, RunResult], thumbs: Thumbs) -> Exhibit | None:
    """The nearest images of rare ones, for the baseline and the best of the others."""
    first = runs[study.baseline]
    own = _gallery(first)
    if not len(own.queries):
        return None
    shown = {
        row: runs[row]
        for row in (study.baseline, study.best_other)
        if row is not None
        and row in runs
        and np.array_equal(_gallery(runs[row]).queries, own.queries)
    }
    bank = {"probe": "the probe set", "train": "the training set"}[own.about["bank"]]
    caption = (
        f"Test images of the rarest classes, drawn by chance, and their nearest neighbours in "
        f"{bank}, the nearest first. Framed: of another class than the image."
    )
    blocks = []
    lines = [
        f"| image of | {' | '.join(plain(f'nearest by {row}') for row in shown)} |",
        "|---" * (1 + len(shown)) + "|",
    ]
    for k, query in enumerate(own.queries):
        label = int(own.targets[query])
        name, count = name_of(first, label), first.class_counts[label]
        near = [_near(row, run, k, label, thumbs) for row, run in shown.items()]
        blocks.append(
            f'<li><div class="query">{thumbs.show(own.images[query], name)}<div><strong>'
            f"{escape(name)}</strong><small>{count:,} training images</small></div></div>"
            f"{''.join(html for html, _ in near)}</li>"
        )
        lines.append(f"| {plain(f'{name} ({count:,})')} | {' | '.join(told for _, told in near)} |")
    html = f'<ul class="hoods">{"".join(blocks)}</ul>'
    return Exhibit("neighbours", "Neighbours of rare images", caption, html, lines)


def _near(row: str, run: RunResult, k: int, label: int, thumbs: Thumbs) -> tuple[str, str]:
    """The neighbours of a row's k-th image, of class ``label``: as HTML, and as Markdown."""
    labels, images = _gallery(run).near_targets[k], _gallery(run).near_images[k]
    names = [name_of(run, int(c)) for c in labels]
    told = f"{int((labels == label).sum())} of {len(labels)}"
    shown = "".join(
        thumbs.show(image, name, "" if c == label else "off")
        for image, name, c in zip(images, names, labels, strict=True)
    )
    html = f"<div><small>{escape(row)}: {told} of its class</small><div>{shown}</div></div>"
    return html, plain(f"{told}: {', '.join(names)}")


def _alone(study: Study, runs: Mapping[str, RunResult], thumbs: Thumbs) -> Exhibit | None:
    """What the baseline and the best of the others get right where the other errs, and what each
    row gets right that no other does; nothing for one row."""
    if len(runs) < 2:
        return None
    found, votes = alone_right(runs)
    first = next(iter(runs.values()))
    parts = {}
    base, best = study.baseline, study.best_other
    if len(runs) > 2 and best is not None and best in runs:
        both, _ = alone_right({name: runs[name] for name in (base, best)})
        parts = {f"{base}, not {best}": both[base], f"{best}, not {base}": both[best]}
    parts |= {f"{row} alone": places for row, places in found.items() if len(places)}
    without = [row for row, places in found.items() if not len(places)]
    caption = (
        f"Of {len(_gallery(first).targets)} test images, drawn evenly over the classes, on one "
        f"pair of runs, by {_gallery(first).about['protocol']}; images of rare classes first. "
        f"Every row is right on {votes['all']}, none on {votes['none']}. Some are chance: "
        "runs of one method that differ in their seed have such images, too."
    )
    if without:
        caption += f" No image is right by these alone: {', '.join(without)}."
    blocks, lines = [], ["| right by | images | of which classes |", "|---|---:|---|"]
    for head, places in parts.items():
        html, line = _hits(head, first, places, thumbs)
        blocks.append(html)
        lines.append(line)
    html = f'<ul class="alone">{"".join(blocks)}</ul>'
    return Exhibit("alone", "Right by one, not the other", caption, html, lines)


def _hits(head: str, run: RunResult, places: np.ndarray, thumbs: Thumbs) -> tuple[str, str]:
    """The images at these rows of a run's gallery, as HTML and as a line of Markdown."""
    gallery = _gallery(run)
    names = [name_of(run, int(gallery.targets[p])) for p in places]
    tally = {name: names.count(name) for name in dict.fromkeys(names)}
    told = ", ".join(f"{name} {count}" for name, count in tally.items())
    images = "".join(
        thumbs.show(gallery.images[p], f"{name}, right by {head}")
        for p, name in zip(places[:_ALONE], names, strict=False)
    )
    html = (
        f"<li><strong>{escape(head)}</strong><small>{len(places)}"
        f"{f': {escape(told)}' if told else ''}</small><div>{images}</div></li>"
    )
    return html, f"| {plain(head)} | {len(places)} | {plain(told)} |"


def _pools(study: Study, thumbs: Thumbs) -> Exhibit | None:
    """Which images of an OOD pool were chosen last, by cluster of the training images."""
    shown = {
        row: found
        for row, members in study.rows.items()
        if (found := members[0].gallery) is not None and len(found.pool_images)
    }
    if not shown:
        return None
    caption = (
        "Of the pool's images that were drawn last, those nearest to the middle of each cluster of "
        "training images, the nearest first. The more a cluster's images are rare by their tail "
        "score, the more are drawn for it. Of each row its first run."
    )
    parts, lines = [], ["| row | images drawn for each cluster |", "|---|---|"]
    for row, found in list(shown.items())[:_POOLS]:
        order = np.argsort(-found.pool_sizes, kind="stable")
        told = [f"{int(found.pool_sizes[c]):,}" for c in order]
        lines.append(f"| {plain(row)} | {', '.join(told)} |")
        blocks = []
        for c, size in zip(order, told, strict=True):
            images = "".join(
                thumbs.show(image, f"of the pool, for a cluster with {size}")
                for image in found.pool_images[found.pool_clusters == c]
            )
            blocks.append(f"<li><small>{size} images</small><div>{images}</div></li>")
        parts.append(f'<h3>{escape(row)}</h3><ul class="alone">{"".join(blocks)}</ul>')
    if len(shown) > _POOLS:
        caption += f" {len(shown) - _POOLS} more rows are not shown."
    return Exhibit("pool", "Drawn from the pool", caption, "".join(parts), lines)


def _gallery(run: RunResult) -> Gallery:
    assert run.gallery is not None
    return run.gallery


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f}"


def _points(look: ClassLook) -> str:
    if look.difference is None:
        return MISSING
    return f"{round(100 * look.difference, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")
