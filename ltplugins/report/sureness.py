# SPDX-License-Identifier: MIT
"""Pictures of how sure classifiers are, and of which shot group they take for which.

Each is of the first run of a row. Draw inside ``style.theme``.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from ltplugins.eval.results import ProtocolResult, Reliability
from ltplugins.metrics.groups import GROUPS
from ltplugins.report.evaluated import RunResult
from ltplugins.report.plates import Panel, Plate
from ltplugins.report.style import SHOTS, THEME

MAX_PANELS = 6
_LEAST = 0.01  # share of a group's images below which a bin is not drawn: its accuracy is chance
Rows = dict[str, list[RunResult]]


def sure_rows(rows: Rows) -> dict[str, ProtocolResult]:
    """Results that know their calibration and confusion, by row, and by protocol where several."""
    found = {
        (row, name): entry
        for row, members in rows.items()
        for name, entry in members[0].results.protocols.items()
        if entry.calibration is not None and entry.confusion is not None
    }
    several = len({name for _, name in found}) > 1
    return {f"{row}, {name}" if several else row: entry for (row, name), entry in found.items()}


def _shown(rows: Rows, rule: str) -> dict[str, ProtocolResult]:
    """The first of them; without what was scored under other rules alone."""
    found = {k: v for k, v in sure_rows(rows).items() if v.confusion and rule in v.confusion}
    return dict(list(found.items())[:MAX_PANELS])


def reliability_panels(rows: Rows, rule: str) -> Plate | None:
    """Accuracy against confidence by shot group, a panel for each row; None where nobody knows.

    On the diagonal a classifier is right as often as it says. Dots grow with the images of a bin.
    """
    panels = [
        Panel(name, lambda axis, entry=entry: _reliability(axis, entry, rule), 3.4, 3.2)  # type: ignore[misc]
        for name, entry in _shown(rows, rule).items()
    ]
    return Plate(panels) if panels else None


def _reliability(axis: Axes, entry: ProtocolResult, rule: str) -> None:
    assert entry.calibration is not None
    plain, scaled = (found[rule] for found in (entry.calibration.plain, entry.calibration.scaled))
    _diagonal(axis)
    for group in GROUPS:
        _curve(axis, plain, group)
    axis.set_xlabel(
        f"confidence (%)\ncalibration error {_percent(plain.error['overall'])}; "
        f"{_percent(scaled.error['overall'])} at temperature "
        f"{entry.calibration.temperature:.2f}"
    )
    axis.set_ylabel("accuracy (%)")
    axis.legend(loc="upper left", fontsize=8)


def _diagonal(axis: Axes) -> None:
    axis.plot([0, 100], [0, 100], color=THEME["rule"], linewidth=1, zorder=0)
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)


def _curve(axis: Axes, found: Reliability, group: str) -> None:
    """The bins of a group that hold more than a hundredth of its images."""
    table = np.array(found.bins[group])
    images = table[:, 0]
    if not images.sum():
        return
    kept = images > _LEAST * images.sum()
    sizes = 8 + 120 * images[kept] / images.sum()
    x, y = 100 * table[kept, 1], 100 * table[kept, 2]
    axis.plot(x, y, color=SHOTS[group], linewidth=1.2)
    axis.scatter(
        x,
        y,
        sizes,
        color=SHOTS[group],
        label=f"{group}, {_percent(found.error[group])}",
        clip_on=False,
    )


def confused_rows(rows: Rows, rule: str, protocol: str) -> dict[str, ProtocolResult]:
    """Results that know which group is taken for which: of classifiers, where there are any, or of
    one protocol of the features."""
    known = _shown(rows, rule)
    if known:
        return known
    found = {row: members[0].results.protocols.get(protocol) for row, members in rows.items()}
    told = {k: v for k, v in found.items() if v and v.confusion and rule in v.confusion}
    return dict(list(told.items())[:MAX_PANELS])


def confusion_panels(rows: Rows, rule: str, protocol: str) -> Plate | None:
    """Which share of a group's test images is taken for which group, a panel for each row."""
    panels = [
        Panel(name, lambda axis, entry=entry: _confusion(axis, entry, rule), 3.4, 2.9)  # type: ignore[misc]
        for name, entry in confused_rows(rows, rule, protocol).items()
    ]
    return Plate(panels) if panels else None


def _confusion(axis: Axes, entry: ProtocolResult, rule: str) -> None:
    assert entry.confusion is not None
    counts = np.array(entry.confusion[rule], dtype=float)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    for row, column in np.ndindex(shares.shape):
        # Translucent, over the page's own colour: numbers stay legible in the dark.
        colour = to_rgba(SHOTS["medium"], 0.6 * shares[row, column])
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour))
        text = f"{100 * shares[row, column]:.0f}" if counts[row].sum() else "n/a"
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 11}
        axis.text(column, row, text, **style)
    axis.set_xlim(-0.5, 2.5)
    axis.set_ylim(2.5, -0.5)
    axis.set_xticks(range(3), GROUPS, color=THEME["ink"])
    axis.set_yticks(range(3), GROUPS, color=THEME["ink"])
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("taken for")
    axis.set_ylabel("test images of (%)")


def _percent(error: float | None) -> str:
    return "n/a" if error is None else f"{100 * error:.1f}"
