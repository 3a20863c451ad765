# SPDX-License-Identifier: MIT
"""Forest plots: each row's differences to the baseline, pair by pair, with the mean's interval.

Panels are drawn by ``style.render``; draw inside ``style.theme``.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes

from ltplugins.report.compare import Answer, Effect
from ltplugins.report.paired import LEAST_PAIRS, Paired
from ltplugins.report.plates import Key, Panel, Plate
from ltplugins.report.style import ACCENT, PLAIN, SERIES, THEME, folded, line_height

UP, DOWN = SERIES[2], ACCENT  # the interval lies right of 0, or left


def draw_forest(answers: Sequence[Answer]) -> Plate | None:
    """One panel a measure, the highest row first; None where there is nothing to compare."""
    known = [found for found in answers if found.effects]
    if not known:
        return None
    reach = reach_of([effect for found in known for effect in found.effects])
    rows = max(len(found.effects) for found in known)
    step = line_height([effect.row for found in known for effect in found.effects])
    width = 3.9 if len(known) > 1 else 6.0
    panels = [
        Panel(
            f"{found.measure}, minus {found.baseline}",
            lambda axis, found=found: draw_effects(axis, found.effects, reach),  # type: ignore[misc]
            width,
            0.75 + step * max(rows, 2),
        )
        for found in known
    ]
    return Plate(panels, _keys(known))


def _keys(answers: Sequence[Answer]) -> list[Key]:
    """What is drawn, and nothing else."""
    effects = [effect for found in answers for effect in found.effects]
    if all(len(effect.points) == 1 for effect in effects):
        return [Key("one pair of runs each: no interval", PLAIN, "D")]
    colours = [_colour(effect.found) for effect in effects]
    keys = [
        Key("above: the interval lies right of 0", UP, "D"),
        Key("below: it lies left of 0", DOWN, "D"),
        Key("not distinguishable", PLAIN, "D"),
    ]
    return [*(key for key in keys if key.colour in colours), Key("single pairs", PLAIN, "o")]


def _colour(found: Paired) -> str:
    if found.low is None or found.high is None:
        return PLAIN
    return UP if found.low > 0 else DOWN if found.high < 0 else PLAIN


def reach_of(effects: Sequence[Effect]) -> tuple[float, float]:
    """Limits in points for all panels.

    Means, single pairs and intervals of enough pairs for a verdict lie inside as a whole; of the
    intervals of fewer, nine in ten, for one of two pairs may be as wide as it likes.
    """
    intervals = [
        (one.found.low, one.found.high, one.found.n)
        for one in effects
        if one.found.low is not None and one.found.high is not None
    ]
    inside = [0.005, -0.005, *(one.found.effect or 0.0 for one in effects)]
    inside += [point for one in effects for point in one.points]
    inside += [end for *ends, n in intervals if n >= LEAST_PAIRS for end in ends]
    if intervals:
        usual = int(0.9 * (len(intervals) - 1))
        inside.append(sorted(high for _, high, _ in intervals)[usual])
        inside.append(sorted((low for low, _, _ in intervals), reverse=True)[usual])
    return 106 * min(inside), 106 * max(inside)


def draw_effects(
    axis: Axes,
    effects: Sequence[Effect],
    reach: tuple[float, float],
    colours: Sequence[str] | None = None,
) -> None:
    """A line an effect, from above: its mean, its interval, its single pairs.

    Args:
        reach: limits of the axis, in points.
        colours: of the effects; None = by the side of 0 that their intervals lie on.
    """
    axis.axvline(0, color=THEME["muted"], linewidth=1)
    low, high = reach
    for y, effect in enumerate(effects):
        paired = effect.found
        colour = colours[y] if colours else _colour(paired)
        if paired.low is not None and paired.high is not None:
            ends = [100 * paired.low, 100 * paired.high]
            axis.plot([max(ends[0], low), min(ends[1], high)], [y, y], color=colour, linewidth=2)
            for end, edge, shape in ((ends[0], low, "<"), (ends[1], high, ">")):
                if not low <= end <= high:  # the interval goes on beyond the picture
                    axis.plot([edge], [y], shape, color=colour, markersize=4, clip_on=False)
        across = [y + 0.26] * len(effect.points) if len(effect.points) > 1 else []
        if across:
            single = [100 * p for p in effect.points]
            axis.plot(single, across, "o", color=PLAIN, markersize=2.6, markeredgewidth=0)
        axis.plot([100 * (paired.effect or 0.0)], [y], "D", color=colour, markersize=5)
    axis.set_yticks(range(len(effects)), [folded(e.row) for e in effects], color=THEME["ink"])
    axis.tick_params(axis="y", pad=7)
    axis.set_ylim(len(effects) - 0.4, -0.6)
    axis.set_xlim(low, high)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", visible=True)
    axis.set_xlabel("difference in percentage points")
