# SPDX-License-Identifier: MIT
"""The report's pictures of numbers: shot groups, class rank, class counts, training curves.

Each function takes what it draws and returns a figure; `ltplugins.report.style` decides on looks.
Draw inside ``style.theme``. Accuracies come in as fractions and are drawn in percent.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltplugins.metrics.groups import GROUPS, rank_classes
from ltplugins.report.style import SHOTS, THEME, marker, panels, series, shared_legend
from ltplugins.report.table import RunResult, Section

NAMED_CLASSES = 20  # up to here every class gets its own mark and count
CURVE_POINTS = 200
MAX_CURVES = 9


def draw_groups(sections: Sequence[Section]) -> Figure:
    """Bars of the overall, many, medium and few accuracy of each row; one panel per protocol."""
    figure, axes = panels(len(sections), 2, 2.7, sharey=True)
    shown = ("overall", *GROUPS)
    for axis, section in zip(axes, sections, strict=True):
        width = 0.8 / len(section.rows)
        for i, row in enumerate(section.rows):
            places = np.arange(len(shown)) + (i - (len(section.rows) - 1) / 2) * width
            for place, metric in zip(places, shown, strict=True):
                cell = row.cells[metric]
                if cell.mean is None:
                    if len(section.rows) <= 4:  # more would print over one another
                        gap: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8}
                        axis.text(place, 1, "n/a", color=THEME["muted"], **gap)
                    continue
                axis.bar(place, 100 * cell.mean, width * 0.92, color=series(i))
                spread = 100 * (cell.std or 0.0)
                if cell.std is not None:
                    style: dict[str, Any] = {"ecolor": THEME["ink"], "elinewidth": 1, "capsize": 2}
                    axis.errorbar(place, 100 * cell.mean, spread, fmt="none", **style)
                if len(section.rows) <= 4:
                    top, text = 100 * cell.mean + spread + 1, f"{100 * cell.mean:.0f}"
                    axis.text(place, top, text, ha="center", va="bottom", fontsize=8)
            axis.bar(0, 0, color=series(i), label=row.name)
        axis.set_title(section.protocol)
        axis.set_xticks(range(len(shown)), shown, color=THEME["ink"])
        axis.axvline(0.5, color=THEME["rule"], linewidth=0.8)
        axis.set_xlim(-0.5, len(shown) - 0.5)
        axis.set_ylim(0, 105)
        axis.set_ylabel("accuracy (%)")
    shared_legend(figure, axes)
    return figure


def draw_rank(sections: Sequence[Section], rows: dict[str, list[RunResult]], rule: str) -> Figure:
    """Accuracy per class against the class's rank by training images; one panel per protocol.

    The band is ± one standard deviation over runs. Beyond 20 classes the line is a moving average.
    """
    figure, axes = panels(len(sections), 2 if len(sections) > 1 else 1, 2.9, sharey=True)
    counts = ranked_counts([run for members in rows.values() for run in members])
    for axis, section in zip(axes, sections, strict=True):
        for i, (name, members) in enumerate(rows.items()):
            curves = [ranked_accuracy(run, section.protocol) for run in members]
            if all(np.isnan(curve).all() for curve in curves):
                continue
            _rank_line(axis, np.stack(curves), i, name)
        axis.set_title(section.protocol, pad=20)  # above the names of the groups
        axis.set_ylabel("accuracy (%)")
        _rank_axis(axis, counts)
        _group_borders(axis, next(iter(rows.values()))[0], rule)
    # The panels share one axis: what the last of them shows must fit, too.
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(max(-2, 10 * (low // 10)), min(102, high))
    shared_legend(figure, axes)
    return figure


def ranked_accuracy(run: RunResult, protocol: str) -> np.ndarray:
    """Return Float[C], per-class accuracy with the largest training class first; NaN = n/a."""
    entry = run.results.protocols.get(protocol)
    if entry is None:
        return np.full(len(run.class_counts), np.nan)
    values = [np.nan if v is None else v for v in entry.per_class]
    return np.array(values, dtype=float)[rank_classes(run.class_counts)]


def ranked_counts(runs: Sequence[RunResult]) -> np.ndarray:
    """Return Float[C], training images by rank, averaged over runs."""
    return np.mean([sorted(run.class_counts, reverse=True) for run in runs], axis=0)


def _rank_line(axis: Axes, curves: np.ndarray, i: int, name: str) -> None:
    num_classes = curves.shape[1]
    curves = curves[~np.isnan(curves).all(axis=1)]  # without runs that lack the protocol
    if not len(curves):
        return
    known = ~np.isnan(curves).all(axis=0)
    ranks = np.arange(1, num_classes + 1)[known]
    curves = 100 * curves[:, known]
    mean = np.nanmean(curves, axis=0)
    if num_classes > NAMED_CLASSES:
        axis.plot(ranks, mean, ".", color=series(i), alpha=0.3, markersize=3)
        window = min(len(mean), max(3, num_classes // 12) | 1)
        weights = np.convolve(np.ones_like(mean), np.ones(window), "same")
        smooth = np.convolve(mean, np.ones(window), "same") / weights
        axis.plot(ranks, smooth, color=series(i), label=name)
        return
    if len(curves) > 1:
        spread = np.nanstd(curves, axis=0, ddof=1)
        axis.fill_between(
            ranks, mean - spread, mean + spread, color=series(i), alpha=0.15, linewidth=0
        )
    axis.plot(ranks, mean, marker=marker(i), color=series(i), label=name)


def _rank_axis(axis: Axes, counts: np.ndarray) -> None:
    """Label the x axis with ranks and, below them, how many training images stand there."""
    num = len(counts)
    ranks = range(1, num + 1)
    if num > NAMED_CLASSES:
        ranks = sorted({1, num, *(round(1 + (num - 1) * i / 6) for i in range(1, 6))})  # type: ignore
    axis.set_xticks(list(ranks), [f"{rank}\n{counts[rank - 1]:,.0f}" for rank in ranks])
    axis.set_xlabel("class rank by training images; below: training images of that class")


def _group_borders(axis: Axes, run: RunResult, rule: str) -> None:
    """Mark where many ends and medium, few begin."""
    start = 0
    for name in GROUPS:
        size = len(run.results.groups[rule].of(name))
        if not size:
            continue
        if start:
            axis.axvline(start + 0.5, color=THEME["muted"], linewidth=0.8, linestyle=(0, (2, 3)))
        place = (start + size / 2 + 0.5, 1.0)
        style: dict[str, Any] = {"ha": "center", "va": "bottom", "color": THEME["muted"]}
        axis.annotate(name, place, xycoords=("data", "axes fraction"), fontsize=8, **style)
        start += size


def draw_counts(run: RunResult, rule: str) -> Figure:
    """Bars of the training images per class, largest first, in the colours of the shot groups."""
    figure, [axis] = panels(1, 1, 2.2)
    order = rank_classes(run.class_counts)
    group_of = {c: name for name in GROUPS for c in run.results.groups[rule].of(name)}
    counts = [run.class_counts[c] for c in order]
    ranks = np.arange(1, len(order) + 1)
    axis.bar(ranks, counts, 0.82, color=[SHOTS[group_of[c]] for c in order])
    for name in GROUPS:
        size = len(run.results.groups[rule].of(name))
        axis.bar(1, 0, color=SHOTS[name], label=f"{name} ({size} classes)")
    if len(order) <= NAMED_CLASSES:
        names = run.class_names or [str(c) for c in range(len(order))]
        axis.set_xticks(ranks, [names[c] for c in order])
        for rank, count in enumerate(counts, start=1):
            axis.text(rank, count, f"{count:,}", ha="center", va="bottom", fontsize=8)
        if max(len(name) for name in names) > 130 / len(order):
            axis.set_xticks(ranks, [names[c] for c in order], rotation=30, ha="right")
    else:
        axis.set_xlabel("class rank by training images")
    axis.set_xlim(0.4, len(order) + 0.6)
    axis.set_ylabel("training images")
    axis.legend(loc="upper right")
    return figure


def draw_curves(rows: dict[str, list[RunResult]]) -> Figure | None:
    """Small multiples of the logged curves, losses first; None if nothing was logged.

    With several runs in a row each is a thin line and their mean, where steps agree, a thick one.
    """
    names = curve_names(rows)[:MAX_CURVES]
    if not names:
        return None
    figure, axes = panels(len(names), 3, 2.1)
    for axis, metric in zip(axes, names, strict=True):
        for i, (row, members) in enumerate(rows.items()):
            if axis is axes[0]:
                axis.plot([], [], color=series(i), label=row)
            lines = [thin_out(*run.curves[metric]) for run in members if metric in run.curves]
            if not lines:
                continue
            draw_lines(axis, lines, series(i))
        axis.set_title(metric)
        axis.set_xlabel("training step")
    shared_legend(figure, axes)
    return figure


def draw_lines(
    axis: Axes, lines: Sequence[tuple[np.ndarray, np.ndarray]], colour: str, **style: Any
) -> None:
    """Thin lines of a row's runs and, where their steps agree, their mean as a thick one."""
    same = all(np.array_equal(lines[0][0], steps) for steps, _ in lines)
    if len(lines) > 1 or not same:
        for steps, values in lines:
            axis.plot(steps, values, color=colour, alpha=0.35, linewidth=0.8)
    if same:
        mean = np.mean([values for _, values in lines], axis=0)
        axis.plot(lines[0][0], mean, color=colour, **style)


def curve_names(rows: dict[str, list[RunResult]]) -> list[str]:
    """Return the logged metrics of all runs, losses first, then by name."""
    names = {name for members in rows.values() for run in members for name in run.curves}
    return sorted(names, key=lambda name: ("loss" not in name, name))


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
