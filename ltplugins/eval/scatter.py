# SPDX-License-Identifier: MIT
"""The report's maps of test features, with the tail drawn so that it can be seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltplugins.eval.groups import GROUPS
from ltplugins.eval.style import CLASSES, SHOTS, THEME, panels
from ltplugins.eval.summary import RunResult

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
    tail = _handle("^", SHOTS["few"], "few-shot class")
    if len(runs[0].class_counts) <= len(CLASSES):
        handles = [_handle("o", THEME["muted"], "many- and medium-shot class"), tail]
    else:
        handles = [_handle("o", SHOTS[g], f"{g}-shot class") for g in GROUPS[:2]] + [tail]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


def _handle(shape: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], marker=shape, color=colour, linestyle="", markersize=6, label=label)


def _scatter(axis: Axes, run: RunResult, rule: str) -> None:
    points = np.asarray(run.embedding, dtype=float)
    targets = np.asarray(run.embedding_targets)
    groups = run.results["groups"][rule]
    named = len(run.class_counts) <= len(CLASSES)
    for group in GROUPS:  # few last: on top
        for label in groups[group]:
            chosen = points[targets == label]
            colour = CLASSES[label] if named else SHOTS[group]
            style: dict[str, Any]
            if group == "few":
                style = {"marker": "^", "s": 22, "edgecolors": THEME["ink"], "linewidths": 0.5}
            else:
                style = {"marker": "o", "s": 9, "linewidths": 0, "alpha": 0.55}
            axis.scatter(*chosen.T, color=colour, rasterized=True, **style)
    if named:
        _name_classes(axis, run, points, targets, set(groups["few"]))
    axis.set_title(run.name)
    axis.set_axis_off()
    axis.set_aspect("equal", adjustable="datalim")


def _name_classes(
    axis: Axes, run: RunResult, points: np.ndarray, targets: np.ndarray, tail: set[int]
) -> None:
    for label, count in enumerate(run.class_counts):
        chosen = points[targets == label]
        if not len(chosen):
            continue
        name = run.class_names[label] if run.class_names else str(label)
        axis.annotate(
            f"{name} ({count:,})",
            np.median(chosen, axis=0),
            ha="center",
            va="center",
            fontsize=7.5,
            fontweight="bold" if label in tail else "normal",
            bbox={"boxstyle": "round,pad=0.2", "fc": THEME["paper"], "ec": "none", "alpha": 0.8},
        )
