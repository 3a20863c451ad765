# SPDX-License-Identifier: MIT
"""The picture of the features' health while training, and where they count as collapsed.

Draw inside ``style.theme``; a run has these curves where it was trained with ``health: true``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from ltplugins.metrics.collapse import MOST_DEAD, SAME_DIRECTION
from ltplugins.report.curves import draw_rows, thin_out
from ltplugins.report.evaluated import RunResult
from ltplugins.report.plates import Panel, Plate
from ltplugins.report.style import THEME, line_colours

# Curve -> its title, with what is better where that can be said.
TITLES = {
    "rankme": "RankMe: dimensions in use",
    "uniformity": "uniformity (lower spreads more)",
    "alignment": "alignment of two views (lower is closer)",
    "dead": "dead dimensions (%)",
    "classifier_etf": "classifier's angles to the ETF (degrees)",
}
CAPTION = (
    "Of the backbone's features, in eval mode, on an epoch's last images. No label has a part in "
    "the first four. Features count as collapsed above the dotted lines, and where RankMe falls to "
    "a hundredth of the dimensions or below 2. Alignment and uniformity pull against each other: "
    "read them together. The last panel is the mean difference between the "
    "angles of the online classifier's weights and those of a simplex ETF: a diagnostic, no "
    "target, since under imbalance cross-entropy's optimum is no ETF."
)
_FEW = 30  # points up to which each has its mark


def health_panels(
    rows: Mapping[str, Sequence[RunResult]], marked: Sequence[str] = ()
) -> Plate | None:
    """One panel a measure, a line a row; None where no run has a course of any.

    With several runs in a row each is a thin line and their mean, where epochs agree, a thick one.
    """
    colours = line_colours(list(rows), marked)
    panels = []
    for name, title in TITLES.items():
        lines = {
            row: [_line(run, name) for run in runs if len(run.health.get(name, ((), ()))[1]) > 1]
            for row, runs in rows.items()
        }
        shown = {row: own for row, own in lines.items() if own}
        if not shown:
            continue

        def draw(axis: Axes, shown: Any = shown, name: str = name) -> None:
            few = len(next(iter(shown.values()))[0][0]) <= _FEW
            draw_rows(axis, shown, colours, limits=lambda: _limits(axis, name), **_mark(few))

        panels.append(Panel(title, draw, 3.9, 2.3 + 0.06 * len(shown)))
    return Plate(panels) if panels else None


def _mark(few: bool) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3} if few else {}


def _line(run: RunResult, name: str) -> Any:
    steps, values = thin_out(*run.health[name])
    return steps, 100 * values if name == "dead" else values


def _limits(axis: Axes, name: str) -> None:
    """A scale that does not make much of little, and where features count as collapsed."""
    low, high = axis.get_ylim()
    if name == "uniformity":
        low, high = min(low, -1.0), 0.0
    elif name == "dead":
        low, high = 0.0, max(high, 10.0)
        high = 100.0 if high > 100 * MOST_DEAD else high
    else:
        low, high = 0.0, max(high, 1e-3)
    room = 0.06 * (high - low)  # for what lies on the edge
    is_share = name == "dead"  # nothing is drawn below 0 or above 100 %
    axis.set_ylim(0 if is_share else low - room, min(high + 2 * room, 100 if is_share else 1e9))
    border = {"uniformity": SAME_DIRECTION, "dead": 100 * MOST_DEAD}.get(name)
    if border is not None and border < high:
        style: dict[str, Any] = {"color": THEME["muted"], "linewidth": 0.8}
        axis.axhline(border, linestyle=(0, (2, 3)), **style)
        place: dict[str, Any] = {"ha": "right", "va": "bottom", "color": THEME["muted"]}
        place |= {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points"}
        axis.annotate("collapsed above", (1.0, border), xytext=(0, 4), fontsize=8, **place)
