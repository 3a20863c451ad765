# SPDX-License-Identifier: MIT
"""The report's maps of test features, with the tail drawn so that it can be seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ltplugins.eval.gallery import Gallery
from ltplugins.metrics.groups import GROUPS, rank_classes
from ltplugins.report.evaluated import RunResult
from ltplugins.report.plates import Key, Panel, Plate
from ltplugins.report.style import CLASSES, SHOTS, THEME
from ltplugins.report.thumbs import Point

MAX_PANELS = 4
_RARE, _OTHERS = 120, 80  # points of a map that show their pictures


def scatter_panels(runs: Sequence[RunResult], rule: str) -> Plate | None:
    """One panel per run with an embedding: few-shot classes as triangles on top of the others.

    Up to 12 classes each has its colour and its name at its median; beyond, colours are groups.
    """
    runs = [run for run in runs if run.embedding is not None][:MAX_PANELS]
    if not runs:
        return None
    panels = []
    for run in runs:
        points, at = shown_points(run)
        draw = lambda axis, run=run: _scatter(axis, run, rule)  # noqa: E731
        panels.append(Panel(run.row_name, draw, 5.0, 4.6, points, at))
    return Plate(panels, _keys(runs, rule))


def _keys(runs: Sequence[RunResult], rule: str) -> list[Key]:
    """What is drawn and nothing else; where colours are classes a mark's shape alone says it."""
    named = len(runs[0].class_counts) <= len(CLASSES)
    shown = [g for g in GROUPS if any(run.results.groups[rule].of(g) for run in runs)]
    if not named:
        return [Key(f"{g}-shot class", SHOTS[g], _shape(g)) for g in shown]
    keys = [Key("many- and medium-shot classes", THEME["muted"], "o")]
    return keys + [Key("few-shot classes", THEME["muted"], "^")] * ("few" in shown)


def shown_points(run: RunResult) -> tuple[list[Point], np.ndarray]:
    """Points whose pictures are known, and Float[n 2]: all of the rarest classes, of others some.

    A run without a gallery, or whose map does not say which images it is of, has none.
    """
    gallery, places = run.gallery, run.embedding_places
    if gallery is None or places is None:
        return [], np.zeros((0, 2))
    row_of = {int(place): row for row, place in enumerate(places)}
    known = np.array([k for k, place in enumerate(gallery.places) if int(place) in row_of])
    rank = np.argsort(rank_classes(run.class_counts))[gallery.targets[known]]
    known = known[np.argsort(-rank, kind="stable")]
    rest = known[_RARE:]
    step = max(1, -(-len(rest) // _OTHERS))
    chosen = [*known[:_RARE], *rest[::step]][::-1]  # the rarest last: on top
    points = [Point(gallery.images[k], _says(run, gallery, k)) for k in chosen]
    at = [row_of[int(gallery.places[k])] for k in chosen]
    return points, np.asarray(run.embedding, dtype=float)[at]


def _says(run: RunResult, gallery: Gallery, k: int) -> str:
    names = run.class_names or [str(label) for label in range(len(run.class_counts))]
    true = int(gallery.targets[k])
    taken = int(gallery.preds[k]) if len(gallery.preds) else true
    return names[true] if taken == true else f"{names[true]}, taken for {names[taken]}"


def _shape(group: str) -> str:
    return "^" if group == "few" else "o"


def _scatter(axis: Axes, run: RunResult, rule: str) -> None:
    points = np.asarray(run.embedding, dtype=float)
    targets = np.asarray(run.embedding_targets)
    groups = run.results.groups[rule]
    named = len(run.class_counts) <= len(CLASSES)
    size = float(np.clip(8000 / len(points), 5, 14))  # square points, for the many-shot classes
    for group in GROUPS:  # few last: on top
        for label in groups.of(group):
            chosen = points[targets == label]
            colour = CLASSES[label] if named else SHOTS[group]
            style: dict[str, Any] = {"s": size, "alpha": 0.7}
            if group == "few":
                style = {"s": 2 * size}
            style |= {"marker": _shape(group), "linewidths": 0, "rasterized": True}
            axis.scatter(*chosen.T, color=colour, **style)
    if named:
        _name_classes(axis, run, points, targets, set(groups.few))
    axis.set_axis_off()
    axis.margins(0.06)


def _name_classes(
    axis: Axes, run: RunResult, points: np.ndarray, targets: np.ndarray, tail: set[int]
) -> None:
    """Write each class's name and training count at its median point, or with a line to it."""
    shown = [label for label in range(len(run.class_counts)) if (targets == label).any()]
    names = run.class_names or [str(label) for label in range(len(run.class_counts))]
    texts = [f"{names[label]} ({run.class_counts[label]:,})" for label in shown]
    low, span = points.min(axis=0), np.ptp(points, axis=0) + 1e-9
    centres = np.array([_middle(points[targets == label]) for label in shown])
    places = low + span * spread_labels((centres - low) / span, [0.021 * len(t) for t in texts])
    box = {"boxstyle": "round,pad=0.15", "fc": THEME["paper"], "ec": "none", "alpha": 0.8}
    line = {"arrowstyle": "-", "color": THEME["ink"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
    for label, text, place, centre in zip(shown, texts, places, centres, strict=True):
        weight = "bold" if label in tail else "normal"
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": weight}
        axis.annotate(text, centre, place, fontsize=8, bbox=box, arrowprops=line, **style)


def _middle(points: np.ndarray) -> np.ndarray:
    """The point nearest to the median: of a class in two parts the median lies on neither."""
    gaps = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return points[gaps.argmin()]


def spread_labels(
    places: np.ndarray, widths: Sequence[float], height: float = 0.055, rounds: int = 60
) -> np.ndarray:
    """Push overlapping labels apart vertically, half the overlap each, until none overlap.

    Args:
        places: Float[L 2], centres in panel units (0 to 1).
        widths: Float[L], label widths in panel units.
        height: of a label.
        rounds: upper bound on the passes over all pairs.
    """
    places = places.copy()
    pairs = [(i, j) for i in range(len(places)) for j in range(i)]
    for _ in range(rounds):
        moved = False
        for i, j in pairs:
            gap = places[i] - places[j]
            overlap = height - abs(gap[1])
            if overlap > 1e-6 and abs(gap[0]) < (widths[i] + widths[j]) / 2:
                step = overlap / 2 * (1.0 if gap[1] >= 0 else -1.0)
                places[i, 1] += step
                places[j, 1] -= step
                moved = True
        if not moved:
            break
    return places
