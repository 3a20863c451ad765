# SPDX-License-Identifier: MIT
"""GH's prior over the course of a training, beside the classes that nobody told it of.

Draw inside ``style.theme``.

Legend: E epochs, C classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from ltplugins.report.evaluated import RunResult
from ltplugins.report.plates import Key, Panel, Plate
from ltplugins.report.style import ACCENT, PLAIN, THEME

MAX_PANELS = 6
TENTHS = range(1, 10)
NAME = "train_gh_prior_top{}_epoch"  # of the largest so many per cent of the directions
_SHOWN = 3  # epochs
CAPTION = (
    "Directions from the largest to the smallest by the images that they hold, added up; an even "
    "prior is a straight line. The thicker, the later in the training; dotted: the true classes, "
    "which the method is not told. Near the dotted line the prior is as long-tailed as the data, "
    "which does not say that a direction is a class. Of each row its first run."
)
Rows = Mapping[str, Sequence[RunResult]]
Prior = tuple[Sequence[float], np.ndarray]  # epochs, and Float[E 9], shares at TENTHS


def prior_panels(rows: Rows) -> Plate | None:
    """A panel for each row whose first run has logged its prior; None where none has."""
    runs = {row: members[0] for row, members in rows.items() if members[0].prior is not None}
    panels = [
        Panel(row, lambda axis, run=run: _prior(axis, run), 3.6, 3.0)  # type: ignore[misc]
        for row, run in list(runs.items())[:MAX_PANELS]
    ]
    keys = [Key("the prior", ACCENT, "-"), Key("true classes", THEME["ink"], ":")]
    return Plate(panels, [*keys, Key("an even prior", PLAIN, "-")]) if panels else None


def finding(rows: Rows) -> str:
    """What the largest fifth holds at the end, and of the classes."""
    told = []
    for row, members in list(rows.items()):
        run = members[0]
        if run.prior is not None:
            true = 100 * class_shares(run.class_counts)[1]
            told.append(
                f"{row}: the largest fifth of the directions holds {100 * run.prior[1][-1][1]:.0f} "
                f"% of the images at the end, the largest fifth of the classes {true:.0f} %."
            )
    return " ".join(told[:MAX_PANELS])


def _prior(axis: Axes, run: RunResult) -> None:
    assert run.prior is not None
    epochs, shares = run.prior
    x = np.arange(11) * 10
    axis.plot([0, 100], [0, 100], color=PLAIN, linewidth=1)
    chosen = np.unique(np.linspace(0, len(epochs) - 1, _SHOWN).round().astype(int))
    for place, k in enumerate(chosen, start=1):
        y = 100 * np.array([0.0, *shares[k], 1.0])
        axis.plot(x, y, color=ACCENT, linewidth=0.8 * place)
    if any(run.class_counts):
        true = 100 * np.array([0.0, *class_shares(run.class_counts), 1.0])
        axis.plot(x, true, color=THEME["ink"], linestyle=(0, (1, 2)), linewidth=1.8)
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)
    last = ", ".join(f"{epochs[k]:.0f}" for k in chosen)
    axis.set_xlabel(f"largest directions, or classes (%)\nafter epoch {last}")
    axis.set_ylabel("images that they hold (%)")


def class_shares(counts: Sequence[int]) -> np.ndarray:
    """Float[9]: what part of the images the largest tenth, two tenths ... of the classes hold.

    >>> class_shares([1, 1, 8])[[4, 8]].round(3).tolist()
    [0.85, 0.97]
    """
    largest = np.sort(np.asarray(counts, dtype=float))[::-1]
    held = np.concatenate([[0.0], largest.cumsum() / largest.sum()])
    return np.interp([n * len(counts) / 10 for n in TENTHS], np.arange(len(held)), held)
