# SPDX-License-Identifier: MIT
"""The report's maps of test features, with the tail drawn so that it can be seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltplugins.metrics.groups import GROUPS
from ltplugins.report.style import CLASSES, SHOTS, THEME, panels
from ltplugins.report.table import RunResult

MAX_PANELS = 12


def draw_scatter(runs: Sequence[RunResult], rule: str) -> Figure | None:
    """One panel per run with an embedding: few-shot classes as triangles on top of the others.

    Up to 12 classes each has its colour and its name at its median; beyond, colours are groups.
    """
    runs = [run for run in runs if run.embedding is not None][:MAX_PANELS]
    if not runs:
        return None
    columns = 2 if len(runs) in (1, 2, 4) else 3
    figure, axes = panels(len(runs), columns, 10 / columns)
    for axis, run in zip(axes, runs, strict=True):
        _scatter(axis, run, rule)
    tail = [_handle("^", SHOTS["few"], "few-shot class")] if _any_tail(runs, rule) else []
    if len(runs[0].class_counts) <= len(CLASSES):
        handles = [_handle("o", THEME["muted"], "many- and medium-shot class"), *tail]
    else:
        handles = [_handle("o", SHOTS[g], f"{g}-shot class") for g in GROUPS[:2]] + tail
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


def _any_tail(runs: Sequence[RunResult], rule: str) -> bool:
    return any(run.results.groups[rule].few for run in runs)


def _handle(shape: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], marker=shape, color=colour, linestyle="", markersize=6, label=label)


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
            style: dict[str, Any]
            if group == "few":
                style = {"marker": "^", "s": 2 * size, "ec": THEME["ink"], "linewidths": 0.4}
            else:
                style = {"marker": "o", "s": size, "linewidths": 0, "alpha": 0.55}
            axis.scatter(*chosen.T, color=colour, rasterized=True, **style)
    if named:
        _name_classes(axis, run, points, targets, set(groups.few))
    axis.set_title(run.name)
    axis.set_axis_off()
    axis.margins(0.06)


def _name_classes(
    axis: Axes, run: RunResult, points: np.ndarray, targets: np.ndarray, tail: set[int]
) -> None:
    """Write each class's name and training count at the median of its points."""
    shown = [label for label in range(len(run.class_counts)) if (targets == label).any()]
    names = run.class_names or [str(label) for label in range(len(run.class_counts))]
    texts = [f"{names[label]} ({run.class_counts[label]:,})" for label in shown]
    low, span = points.min(axis=0), np.ptp(points, axis=0) + 1e-9
    places = np.array([np.median(points[targets == label], axis=0) for label in shown])
    places = low + span * spread_labels((places - low) / span, [0.021 * len(t) for t in texts])
    box = {"boxstyle": "round,pad=0.15", "fc": THEME["paper"], "ec": "none", "alpha": 0.75}
    for label, text, place in zip(shown, texts, places, strict=True):
        weight = "bold" if label in tail else "normal"
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": weight}
        axis.annotate(text, place, fontsize=7.5, bbox=box, **style)


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
