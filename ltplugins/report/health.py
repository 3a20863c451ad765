# SPDX-License-Identifier: MIT
"""The picture of the features' health while training, and where they count as collapsed.

Draw inside ``style.theme``; a run has these curves where it was trained with ``health: true``.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltplugins.metrics.health import MOST_DEAD, SAME_DIRECTION
from ltplugins.report.figures import draw_lines, thin_out
from ltplugins.report.style import THEME, marker, panels, series, shared_legend
from ltplugins.report.table import RunResult

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


def draw_health(rows: dict[str, list[RunResult]]) -> Figure | None:
    """One panel a measure, one colour a row; None where no run has logged any.

    With several runs in a row each is a thin line and their mean, where steps agree, a thick one.
    """
    members = [run for runs in rows.values() for run in runs]
    names = [name for name in TITLES if any(name in run.health for run in members)]
    if not names:
        return None
    figure, axes = panels(len(names), 3, 2.3)
    for axis, name in zip(axes, names, strict=True):
        for i, (row, runs) in enumerate(rows.items()):
            lines = [_line(run, name) for run in runs if name in run.health]
            if not lines:
                continue
            few = len(lines[0][0]) <= _FEW
            style: dict[str, Any] = {"marker": marker(i), "markersize": 3.5} if few else {}
            draw_lines(axis, lines, series(i), **style)
            axis.plot([], [], color=series(i), label=row, **style)
        axis.set_title(TITLES[name])
        axis.set_xlabel("training step")
        _limits(axis, name)
    shared_legend(figure, axes)
    return figure


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
    axis.set_ylim(low - room, high + 2 * room)
    border = {"uniformity": SAME_DIRECTION, "dead": 100 * MOST_DEAD}.get(name)
    if border is not None and border < high:
        style: dict[str, Any] = {"color": THEME["muted"], "linewidth": 0.8}
        axis.axhline(border, linestyle=(0, (2, 3)), **style)
        place: dict[str, Any] = {"ha": "right", "va": "bottom", "color": THEME["muted"]}
        place |= {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points"}
        axis.annotate("collapsed above", (1.0, border), xytext=(0, 4), fontsize=8, **place)
