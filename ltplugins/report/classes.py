# SPDX-License-Identifier: MIT
"""Pictures by class: accuracy against training images, and which is taken for which.

Draw inside ``style.theme``.

Legend: C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from ltplugins.metrics.groups import rank_classes
from ltplugins.report.evaluated import RunResult
from ltplugins.report.figures import share_limits
from ltplugins.report.plates import Key, Panel, Plate
from ltplugins.report.style import ACCENT, PLAIN, SHOTS, THEME

MAX_PANELS = 15
SMOOTHED = 20  # classes beyond which a line is a moving average
MOST_CLASSES = 25  # up to which it is drawn which is taken for which
NAMED = 12  # classes up to which each has its name in the picture
Rows = Mapping[str, Sequence[RunResult]]


def by_count_panels(rows: Rows, protocol: str, baseline: str) -> Plate | None:
    """Accuracy per class against its training images on a log axis, a panel a row.

    The line is the mean over runs and, beyond 20 classes, over neighbouring ranks; the baseline's
    stands in each panel. None where no run has the protocol.
    """
    known = {
        row: [run for run in members if protocol in run.results.protocols]
        for row, members in rows.items()
    }
    known = {row: members for row, members in known.items() if members}
    if not known:
        return None
    seen = [100 * a for runs in known.values() for run in runs for a in _known(run, protocol)]
    limits = share_limits(seen)
    others = [row for row in known if row != baseline] or list(known)
    base = known.get(baseline, [])

    def panel(row: str) -> Panel:
        def draw(axis: Axes) -> None:
            if row != baseline:
                _line(axis, base, protocol, PLAIN)
            _points(axis, known[row], protocol)
            _line(axis, known[row], protocol, ACCENT)
            axis.set_ylim(limits[0], min(100.0, limits[1]))
            _count_axis(axis, known[row])

        return Panel(row, draw, 3.4, 2.5)

    keys = [Key("this row", ACCENT, "-"), Key("single classes", ACCENT, ".")]
    keys += [Key(baseline, PLAIN, "-")] if len(known) > 1 else []
    return Plate([panel(row) for row in others[:MAX_PANELS]], keys)


def _known(run: RunResult, protocol: str) -> list[float]:
    return [a for a in run.results.protocols[protocol].per_class if a is not None]


def ranked_accuracy(run: RunResult, protocol: str) -> np.ndarray:
    """Return Float[C], per-class accuracy with the largest training class first; NaN = n/a."""
    entry = run.results.protocols.get(protocol)
    if entry is None:
        return np.full(len(run.class_counts), np.nan)
    values = [np.nan if v is None else v for v in entry.per_class]
    return np.array(values, dtype=float)[rank_classes(run.class_counts)]


def _line(axis: Axes, runs: Sequence[RunResult], protocol: str, colour: str) -> None:
    if not runs:
        return
    table = 100 * np.stack([ranked_accuracy(run, protocol) for run in runs])
    counts = np.mean([sorted(run.class_counts, reverse=True) for run in runs], axis=0)
    shown = ~np.isnan(table).all(axis=0)
    mean, counts = np.nanmean(table[:, shown], axis=0), counts[shown].clip(min=0.5)
    if len(mean) > SMOOTHED:
        window = min(len(mean), max(3, len(mean) // 12) | 1)
        weights = np.convolve(np.ones_like(mean), np.ones(window), "same")
        mean = np.convolve(mean, np.ones(window), "same") / weights
    axis.plot(counts, mean, color=colour, linewidth=1.8, zorder=3)


def _points(axis: Axes, runs: Sequence[RunResult], protocol: str) -> None:
    for run in runs:
        values = run.results.protocols[protocol].per_class
        chosen = [c for c, v in enumerate(values) if v is not None]
        x = [max(run.class_counts[c], 0.5) for c in chosen]
        y = [100 * (values[c] or 0.0) for c in chosen]
        axis.plot(x, y, ".", color=ACCENT, alpha=0.5, markersize=5, markeredgewidth=0)
    if len(runs) == 1 and runs[0].class_names and len(runs[0].class_counts) <= NAMED:
        _names(axis, runs[0], protocol)


def _names(axis: Axes, run: RunResult, protocol: str) -> None:
    values = run.results.protocols[protocol].per_class
    for rank, c in enumerate(rank_classes(run.class_counts)):
        if values[c] is None or run.class_names is None:
            continue
        above = rank % 2 == 0
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 6.5}
        style["va"] = "bottom" if above else "top"
        place = (max(run.class_counts[c], 0.5), 100 * (values[c] or 0.0))
        axis.annotate(run.class_names[c], place, xytext=(0, 4 if above else -4), **style)


def _count_axis(axis: Axes, runs: Sequence[RunResult]) -> None:
    counts = [max(count, 0.5) for run in runs for count in run.class_counts]
    axis.set_xscale("log")
    axis.set_xlim(1.5 * max(counts), min(counts) / 1.5)  # head left, tail right, as in papers
    low, high = np.floor(np.log10(min(counts))), np.ceil(np.log10(max(counts)))
    ticks = [10.0**k for k in np.arange(max(low, 0), high + 1)]
    ticks = [t for t in ticks if min(counts) / 1.5 <= t <= 1.5 * max(counts)] or [max(counts)]
    axis.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("training images of the class")
    axis.set_ylabel("accuracy (%)")


def taken_panels(runs: Mapping[str, RunResult]) -> Plate | None:
    """Shares of each class's test images by the class that they are taken for, most trained first.

    Args:
        runs: by the panel's title.
    """
    shown = {
        title: run
        for title, run in runs.items()
        if run.taken is not None and len(run.class_counts) <= MOST_CLASSES
    }
    if not shown:
        return None
    size = min(5.1, 1.5 + 0.29 * len(next(iter(shown.values())).class_counts))

    def panel(title: str, run: RunResult) -> Panel:
        return Panel(title, lambda axis: _taken(axis, run), size, size)

    return Plate([panel(title, run) for title, run in shown.items()])


def _taken(axis: Axes, run: RunResult) -> None:
    order = rank_classes(run.class_counts)
    counts = np.asarray(run.taken, dtype=float)[order][:, order]
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    for row, column in np.ndindex(shares.shape):
        share = shares[row, column]
        colour = SHOTS["medium"] if row == column else ACCENT
        # Translucent, over the page's own colour: numbers stay legible in the dark.
        box = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=to_rgba(colour, 0.6 * share))
        axis.add_patch(box)
        if len(order) <= NAMED and share >= 0.005:
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5}
            axis.text(column, row, f"{100 * share:.0f}", color=THEME["ink"], **style)
    names = run.class_names or [str(c) for c in range(len(order))]
    labels = [f"{names[c]} ({run.class_counts[c]:,})" for c in order]
    axis.set_xticks(range(len(order)), [names[c] for c in order], rotation=60, ha="right")
    axis.set_yticks(range(len(order)), labels)
    axis.tick_params(labelsize=7.5, colors=THEME["ink"])
    axis.set_xlim(-0.5, len(order) - 0.5)
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("taken for (%)")
