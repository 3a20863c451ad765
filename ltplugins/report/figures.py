# SPDX-License-Identifier: MIT
"""The report's pictures of levels and of the split: accuracy by shot group, class counts, cost.

Each function takes what it draws and returns panels; `ltplugins.report.style` decides on looks.
Draw inside ``style.theme``. Accuracies come in as fractions and are drawn in percent.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ltplugins.eval.scores import mean_std
from ltplugins.metrics.groups import GROUPS, rank_classes
from ltplugins.report.cells import Section
from ltplugins.report.evaluated import RunResult, value
from ltplugins.report.plates import Key, Panel, Plate, join
from ltplugins.report.style import (
    ACCENT,
    PLAIN,
    SERIES,
    SHAPES,
    SHOTS,
    THEME,
    folded,
    line_height,
    name_lines,
)

NAMED_CLASSES = 20  # up to here every class gets its own mark and count
_SHOWN = ("overall", *GROUPS)
_COLOURS = {**SHOTS, "overall": THEME["ink"]}


def draw_groups(sections: Sequence[Section]) -> Figure:
    """The panels of ``level_panels`` in one figure."""
    return join(level_panels(sections))


def level_panels(sections: Sequence[Section]) -> Plate:
    """Accuracy of the groups, a line a row and a panel a protocol, the best on few first."""
    lines = max(len(section.rows) for section in sections)
    step = line_height([row.name for section in sections for row in section.rows])
    panels = [
        Panel(
            section.protocol,
            lambda axis, section=section: _levels(axis, section),  # type: ignore[misc]
            3.9,
            0.8 + step * max(lines, 3),
        )
        for section in sections
    ]
    return Plate(panels, [Key(name, _COLOURS[name], SHAPES[name]) for name in _SHOWN])


def _levels(axis: Axes, section: Section) -> None:
    def place(row: Any) -> float:
        known = [row.cells[m].mean for m in ("few", "overall") if row.cells[m].mean is not None]
        return -(known[0] if known else -1.0)

    rows = sorted(section.rows, key=place)
    seen = []
    for y, row in enumerate(rows):
        found = {measure: row.cells[measure].mean for measure in _SHOWN}
        known = {measure: mean for measure, mean in found.items() if mean is not None}
        values = [100 * mean for mean in known.values()]
        if not values:
            axis.text(0.02, y, "n/a", transform=axis.get_yaxis_transform(), color=THEME["muted"])
            continue
        seen += values
        axis.plot([min(values), max(values)], [y, y], color=THEME["rule"], linewidth=2, zorder=1)
        for measure, mean in known.items():
            look: dict[str, Any] = {"color": _COLOURS[measure], "markersize": 5.5, "zorder": 2}
            look["clip_on"] = False
            axis.plot([100 * mean], [y], SHAPES[measure], **look)
    axis.set_yticks(range(len(rows)), [folded(row.name) for row in rows], color=THEME["ink"])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(*share_limits(seen))
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", visible=True)
    axis.set_xlabel("accuracy (%)")


def share_limits(percents: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis of percents: around what is drawn, and never below 0 or above 100.

    >>> share_limits([61.2, 88.0]), share_limits([0.0, 99.0])
    ((60.0, 90.0), (0.0, 100.0))
    """
    if not percents:
        return 0.0, 100.0
    low, high = 5 * math.floor(min(percents) / 5), 5 * math.ceil(max(percents) / 5)
    if high - low < 10:
        low, high = low - 5, high + 5
    return float(max(0, low)), float(min(100, high))


def count_panels(run: RunResult, rule: str) -> Plate:
    """Bars of the training images per class, largest first, in the colours of the shot groups."""
    sizes = {name: len(run.results.groups[rule].of(name)) for name in GROUPS}
    keys = [Key(f"{name} ({size} classes)", SHOTS[name], "s") for name, size in sizes.items()]
    named = len(run.class_counts) <= NAMED_CLASSES
    height = 0.7 + 0.2 * len(run.class_counts) if named else 2.4
    return Plate([Panel("", lambda axis: _counts(axis, run, rule), 5.2, height)], keys)


def _counts(axis: Axes, run: RunResult, rule: str) -> None:
    order = rank_classes(run.class_counts)
    group_of = {c: name for name in GROUPS for c in run.results.groups[rule].of(name)}
    counts = [run.class_counts[c] for c in order]
    colours = [SHOTS[group_of[c]] for c in order]
    if len(order) > NAMED_CLASSES:
        axis.bar(range(1, len(order) + 1), counts, 0.82, color=colours)
        axis.set_xlabel("class rank by training images")
        axis.set_ylabel("training images")
        return
    names = run.class_names or [str(c) for c in range(len(order))]
    axis.barh(range(len(order)), counts, 0.72, color=colours)
    for y, (c, count) in enumerate(zip(order, counts, strict=True)):
        axis.annotate(
            f"{names[c]} ({count:,})",
            (count, y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axis.set_yticks([])
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlim(0, 1.28 * max(counts))
    axis.grid(axis="x", visible=True)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("training images")


def cost_panels(
    rows: Mapping[str, Sequence[RunResult]], protocol: str, rule: str, baseline: str, leader: str
) -> Plate | None:
    """Accuracy against hours and steps of training, a point a row; None where nobody knows."""
    measure = "few" if any(value(r[0], protocol, "few", rule).mean for r in rows.values()) else ""
    measure = measure or "overall"
    panels = []
    for unit in ("hours", "steps"):
        found = {}
        for row, members in rows.items():
            costs = [run.cost.get(unit) for run in members]
            x = mean_std([cost for cost in costs if cost]).mean
            y = mean_std([value(run, protocol, measure, rule).mean for run in members]).mean
            if x is not None and y is not None:
                found[row] = (x, 100 * y)
        if len(found) > 1 and len({x for x, _ in found.values()}) > 1:
            label = "hours of training" if unit == "hours" else "optimiser steps"
            if unit == "hours" and max(x for x, _ in found.values()) < 0.5:
                label, found = (
                    "minutes of training",
                    {k: (60 * x, y) for k, (x, y) in found.items()},
                )
            colours = dict.fromkeys(found, PLAIN) | {baseline: SERIES[0], leader: ACCENT}

            def draw(axis: Axes, found: Any = found, label: str = label, c: Any = colours) -> None:
                for row, (x, y) in found.items():
                    axis.plot([x], [y], "o", color=c[row], clip_on=False)
                axis.set_xlabel(label)
                axis.set_ylabel(f"{measure}, accuracy (%)")
                axis.margins(0.14)
                axis.xaxis.set_major_locator(MaxNLocator(4))
                name_lines(axis, found, c)

            panels.append(Panel(f"{protocol}, by {label.split(' of ')[0]}", draw, 3.9, 3.2))
    return Plate(panels) if panels else None
