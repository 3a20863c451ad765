# SPDX-License-Identifier: MIT
"""The report's curves over training, by epoch: losses, accuracies, and whatever else was logged.

Rows are told apart by their names at their lines' ends. Draw inside ``style.theme``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ltplugins.report.evaluated import RunResult
from ltplugins.report.plates import Panel, Plate
from ltplugins.report.style import PLAIN, line_colours, name_lines

_KNN = "val_knn_acc1"
CURVE_POINTS = 200
MAX_CURVES = 9
Rows = Mapping[str, Sequence[RunResult]]
Line = tuple[np.ndarray, np.ndarray]  # epochs and values
_UNITS = {"acc1": "top-1 accuracy (%)", "entropy": "nats"}


def curve_panels(rows: Rows, marked: Sequence[str] = (), is_knn: bool = False) -> Plate | None:
    """Small multiples of the logged curves, losses first; None where there is none to draw.

    With several runs in a row each is a thin line and their mean, where epochs agree, a thick one.

    Args:
        is_knn: of the kNN while training, in place of all others.
    """
    colours = line_colours(list(rows), marked)
    panels = []
    for metric in (knn_names if is_knn else curve_names)(rows)[:MAX_CURVES]:
        lines = {
            row: [thin_out(*run.curves[metric]) for run in members if metric in run.curves]
            for row, members in rows.items()
        }
        shown = {row: own for row, own in lines.items() if own}
        unit = next((text for name, text in _UNITS.items() if name in metric), "")

        def draw(axis: Axes, shown: Any = shown, unit: str = unit) -> None:
            draw_rows(axis, shown, colours)
            axis.set_ylabel(unit)

        panels.append(Panel(metric, draw, 3.9, 2.3 + 0.06 * len(shown)))
    return Plate(panels) if panels else None


def draw_rows(
    axis: Axes,
    lines: Mapping[str, Sequence[Line]],
    colours: Mapping[str, str],
    limits: Callable[[], None] | None = None,
    **style: Any,
) -> None:
    """Each row's lines in its colour, and its name at their end; ``limits`` sets the axis first."""
    ends = {}
    for row in sorted(lines, key=lambda row: colours[row] != PLAIN):  # the marked ones on top
        ends[row] = draw_lines(axis, lines[row], colours[row], **style)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if limits is not None:
        limits()
    name_lines(axis, ends, colours)


def draw_lines(axis: Axes, lines: Sequence[Line], colour: str, **style: Any) -> tuple[float, float]:
    """Thin lines of a row's runs and, where their epochs agree, their mean as a thick one.

    Returns:
        Where the thick one ends, or the last thin one.
    """
    same = all(np.array_equal(lines[0][0], steps) for steps, _ in lines)
    width = {"linewidth": 1.2} if colour == PLAIN else {}
    if len(lines) > 1 or not same:
        for steps, values in lines:
            axis.plot(steps, values, color=colour, alpha=0.3, linewidth=0.7)
    if not same:
        return float(lines[-1][0][-1]), float(lines[-1][1][-1])
    mean = np.mean([values for _, values in lines], axis=0)
    axis.plot(lines[0][0], mean, color=colour, **{**width, **style})
    return float(lines[0][0][-1]), float(mean[-1])


def curve_names(rows: Rows) -> list[str]:
    """Return the logged metrics that some run has a course of, losses first, then by name.

    The kNN while training is not among them: see :func:`knn_names`.
    """
    names = [name for name in _courses(rows) if not name.startswith(_KNN)]
    return sorted(names, key=lambda name: ("loss" not in name, name))


def knn_names(rows: Rows) -> list[str]:
    """Return the accuracies of the kNN while training that some run has a course of, few first."""
    order = {f"{_KNN}_{name}": k for k, name in enumerate(("few", "medium", "many"))}
    names = [name for name in _courses(rows) if name.startswith(_KNN)]
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def _courses(rows: Rows) -> set[str]:
    return {
        name
        for members in rows.values()
        for run in members
        for name, curve in run.curves.items()
        if is_course(curve)
    }


def left_out(rows: Rows) -> list[str]:
    """Names of logged metrics of which no run has a course, sorted."""
    logged = {name for members in rows.values() for run in members for name in run.curves}
    return sorted(logged - _courses(rows))


def is_course(curve: tuple[Sequence[float], Sequence[float]]) -> bool:
    """Whether a curve has two points or more, and is no constant."""
    return len(curve[1]) > 1 and float(np.ptp(curve[1])) > 0


def thin_out(
    steps: Sequence[float], values: Sequence[float], points: int = CURVE_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Return block means, so that a long noisy curve keeps its level with at most ``points``."""
    pairs = np.array([steps, values], dtype=float)
    if pairs.shape[1] <= points:
        return pairs[0], pairs[1]
    blocks = np.array_split(pairs, points, axis=1)
    means = np.array([block.mean(axis=1) for block in blocks]).T
    return means[0], means[1]
