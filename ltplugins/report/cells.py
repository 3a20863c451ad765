# SPDX-License-Identifier: MIT
"""One number of a table, how sure it is, and whether it may be called best."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

METRICS = ("overall", "balanced", "many", "medium", "few", "group_std")
LABELS = {
    "overall": "overall",
    "balanced": "balanced",
    "many": "many",
    "medium": "medium",
    "few": "few",
    "group_std": "group std",
}
LOWER_IS_BETTER = ("group_std",)
_TWO_SIDED = 1.96  # standard errors that 95 % of all differences by chance stay within
MISSING = "n/a"


@dataclass
class Cell:
    """One number as a fraction.

    Attributes:
        mean: None = n/a.
        std: over repetitions; None = there was one.
        best: whether it is clearly the best.
        error: the standard error that the test set's size leaves.
    """

    mean: float | None
    std: float | None = None
    best: bool = False
    error: float = 0.0

    def text(self, signed: bool = False) -> str:
        """Return percent with one decimal: ``63.4 ± 1.2``, ``+1.0``, or ``n/a``."""
        if self.mean is None:
            return MISSING
        sign = "+" if signed else ""
        tail = "" if self.std is None else f" ± {100 * self.std:.1f}"
        mean = round(100 * self.mean, 1) + 0.0  # no minus before a zero
        return f"{mean:{sign}.1f}{tail}".replace("-", "\N{MINUS SIGN}")


@dataclass
class Row:
    """Cells by metric, and over how many training runs they are averaged."""

    name: str
    num_runs: int
    cells: dict[str, Cell]


@dataclass
class Section:
    """One protocol: its rows, and the differences to the first that has it where runs pair up."""

    protocol: str
    description: str
    rule: str
    rows: list[Row]
    differences: list[Row]


def proportion_error(share: float | None, images: float) -> float:
    """The standard error of a share of so many images, as Agresti and Coull (1998) have it.

    Two hits and two misses are added, so that a share of 0 or 1 is not taken for certain.

    >>> round(proportion_error(0.6, 96), 3), round(proportion_error(1.0, 96), 3)
    (0.049, 0.014)
    """
    if share is None or not images:
        return 0.0
    share = (share * images + 2) / (images + 4)
    return math.sqrt(share * (1 - share) / (images + 4))


def spread_error(groups: Sequence[Cell]) -> float:
    """The standard error of the groups' standard deviation, from theirs to the first order."""
    known = [cell for cell in groups if cell.mean is not None]
    if len(known) < 2:
        return 0.0
    means = [cell.mean or 0.0 for cell in known]
    spread, middle = statistics.pstdev(means), statistics.fmean(means)
    if spread == 0:
        return math.sqrt(statistics.fmean([cell.error**2 for cell in known]))
    slopes = [(mean - middle) / (len(means) * spread) for mean in means]
    return math.hypot(*(slope * cell.error for slope, cell in zip(slopes, known, strict=True)))


def mark_best(rows: Sequence[Row]) -> None:
    """Mark a cell as best where it leads every other row clearly.

    Clearly is by more than either one's std, which is over repetitions, and by more than 1.96
    standard errors of a difference on a test set of this size; the rows' images are taken as drawn
    anew, which is on the safe side. A number without a std (one repetition) proves nothing, so
    nothing is marked beside it.
    """
    for metric in METRICS:
        sign = -1 if metric in LOWER_IS_BETTER else 1
        cells = [row.cells[metric] for row in rows if row.cells[metric].mean is not None]
        if len(cells) < 2 or any(cell.std is None for cell in cells):
            continue
        best = max(cells, key=lambda cell: sign * (cell.mean or 0.0))
        best.best = all(
            sign * ((best.mean or 0.0) - (other.mean or 0.0)) > _margin(best, other)
            for other in cells
            if other is not best
        )


def _margin(one: Cell, other: Cell) -> float:
    """What the difference of two numbers must exceed to say something."""
    return max(one.std or 0.0, other.std or 0.0, _TWO_SIDED * math.hypot(one.error, other.error))
