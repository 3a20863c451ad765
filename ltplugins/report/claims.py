# SPDX-License-Identifier: MIT
"""Verdicts on claims: the rows of their table, as text, CSV and picture."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes

from ltplugins.report.cells import MISSING
from ltplugins.report.compare import Effect
from ltplugins.report.forest import draw_effects, reach_of
from ltplugins.report.paired import LEAST_PAIRS, Paired, Verdict
from ltplugins.report.plates import Key, Panel, Plate
from ltplugins.report.style import ACCENT, PLAIN, SERIES, line_height

COLOURS: dict[Verdict, str] = {"holds": SERIES[2], "does not": ACCENT, "unknown": PLAIN}
COLUMNS = (
    *("claim", "measure", "verdict", "effect", "low", "high", "p", "n", "pairs", "ours", "base"),
    *("epochs", "steps", "time", "device", "settings", "data", "statement", "paper"),
)


@dataclass(frozen=True)
class Side:
    """One arm over the pairs that both have.

    Attributes:
        arm: its name.
        epochs: of each cell.
        mean: of the measure, a fraction; None without a pair.
        steps: of the optimiser by stage, means over cells: those of the cell that it starts or
            learns from, where there is one, and its own.
        seconds: of the training, of all stages; None where a cell was interrupted.
    """

    arm: str
    epochs: int
    mean: float | None = None
    steps: tuple[float | None, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True)
class ClaimRow:
    """A claim by one measure, on one device.

    Attributes:
        claim, statement, paper, data, measure, equal: of the file.
        ours, base: the arms.
        found: the differences, ours minus base, as fractions.
        pairs: that the file has.
        verdict: see ``Paired.verdict``.
        device: names of what the cells were trained on.
        settings: words beyond the file's.
    """

    claim: str
    statement: str
    paper: str
    data: str
    measure: str
    equal: str
    ours: Side
    base: Side
    found: Paired
    pairs: int
    verdict: Verdict
    device: str = ""
    settings: str = ""

    def cells(self) -> dict[str, str]:
        """Its texts by column; accuracies and differences in per cent."""
        found, ours, base = self.found, self.ours, self.base
        return {
            "claim": self.claim,
            "measure": self.measure,
            "verdict": self.verdict,
            "effect": _percent(found.effect, signed=True),
            "low": _percent(found.low, signed=True),
            "high": _percent(found.high, signed=True),
            "p": MISSING if found.p is None else f"{found.p:.3f}",
            "n": str(found.n),
            "pairs": str(self.pairs),
            "ours": f"{ours.arm} {_percent(ours.mean)}",
            "base": f"{base.arm} {_percent(base.mean)}",
            "epochs": f"{ours.epochs} / {base.epochs}",
            "steps": f"{_stages(ours.steps)} / {_stages(base.steps)}",
            "time": _ratio(ours.seconds, base.seconds),
            "device": self.device or MISSING,
            "settings": self.settings,
            "data": self.data,
            "statement": self.statement,
            "paper": self.paper,
        }


@dataclass(frozen=True)
class TailRow:
    """What the tail costs an arm, on one device.

    Attributes:
        arm, epochs, data: of the file.
        runs: that give the classes' numbers of images in other orders.
        most, fewest: images of a class.
        costs: protocol -> losses of accuracy over classes, see ``tail_cost``.
        device: names of what the cells were trained on.
        settings: words beyond the file's.
    """

    arm: str
    epochs: int
    data: str
    runs: int
    most: int
    fewest: int
    costs: dict[str, Paired]
    device: str
    settings: str

    def cells(self) -> dict[str, str]:
        """Its texts by column; costs in percentage points."""
        return {
            "arm": self.arm,
            "epochs": str(self.epochs),
            "runs": str(self.runs),
            **{protocol: _with_interval(found) for protocol, found in self.costs.items()},
        }

    @property
    def images(self) -> str:
        """What it was trained on, and where."""
        parts = [f"{self.most:,} to {self.fewest:,} images a class", self.device, self.settings]
        return "; ".join(filter(None, parts))


def reading_of_tails() -> str:
    """How the table of :class:`TailRow` is to be read."""
    return (
        "By how many points a class is known better where it has the most images than where it has "
        "the fewest, by the same arm: each class against itself in runs of other class orders, by "
        "a straight line over the logarithm of its images, with the 95% interval that unlike "
        "classes leave. Groups of one run do not say this, for its rare classes may be the easy "
        "ones. Where a base loses nothing to the tail, there is nothing that a method for the tail "
        "could give back."
    )


def claims_csv(rows: Sequence[ClaimRow]) -> str:
    """All columns of all rows."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.cells() for row in rows)
    return stream.getvalue().replace("\N{MINUS SIGN}", "-")


def tally(rows: Sequence[ClaimRow]) -> str:
    """How many of each verdict, in a sentence."""
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in COLOURS}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"Of {len(rows)} measures of {len({row.claim for row in rows})} claims: {told}."


def reading() -> list[str]:
    """How the table is to be read, a paragraph each."""
    return [
        "Effect is the mean over pairs of ours minus base, in percentage points, with its 95% "
        "interval (Student's t); p is of the two-sided sign-flip test over all signs of the "
        f"differences. A claim holds where the interval lies on its side of 0, and is unknown "
        f"where the interval contains 0 or there are fewer than {LEAST_PAIRS} pairs.",
        "A pair is one seed with one class order (fashion) or one spatial fold (land); both arms "
        "are trained and tested on the same images. Land has five folds: its later pairs test "
        "places of the earlier ones again, with another seed: six are of five places, so that the "
        "interval is somewhat too narrow and p too small. Intervals are not corrected for the "
        "number of rows: of twenty without any effect, one is expected not to contain 0.",
        "Epochs and steps are ours / base; where an arm starts or learns from another's training, "
        "the steps of that stand first. Time is ours over base, of all training and nothing else, "
        "where no cell was interrupted; cells ran beside others, so it is a rough number.",
    ]


def grouped(rows: Sequence[ClaimRow]) -> list[list[ClaimRow]]:
    """The rows of each claim on each device."""
    blocks = groupby(rows, lambda row: (row.claim, row.device, row.settings))
    return [list(members) for _, members in blocks]


def claim_panels(rows: Sequence[ClaimRow]) -> Plate | None:
    """Effects with their intervals, a panel a claim; None where nothing is known yet."""
    blocks = [[row for row in block if row.found.effect is not None] for block in grouped(rows)]
    blocks = [block for block in blocks if block]
    if not blocks:
        return None
    device = len({(block[0].device, block[0].settings) for block in blocks}) > 1
    effects = [
        [Effect(f"{row.measure} {_count(row.found.n)}", row.found) for row in b] for b in blocks
    ]
    reach = reach_of([effect for block in effects for effect in block])
    panels = []
    for block, own in zip(blocks, effects, strict=True):
        colours = [COLOURS[row.verdict] for row in block]
        step = line_height([effect.row for effect in own])

        def draw(axis: Axes, own: Any = own, colours: Any = colours) -> None:
            draw_effects(axis, own, reach, colours)

        panels.append(Panel(_title(block[0], device), draw, 3.9, 0.75 + step * max(len(own), 2)))
    keys = [Key(verdict, colour, "D") for verdict, colour in COLOURS.items()]
    return Plate(panels, keys)


def _count(n: int) -> str:
    return f"(n = {n})".replace(" ", "\N{NO-BREAK SPACE}")


def _title(row: ClaimRow, with_device: bool) -> str:
    tail = f", {row.device} {row.settings}".rstrip() if with_device else ""
    return f"{row.claim}: {row.ours.arm} minus {row.base.arm}{tail}"


def _percent(value: float | None, signed: bool = False) -> str:
    if value is None:
        return MISSING
    text = f"{100 * value:+.2f}" if signed else f"{100 * value:.1f}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(found: Paired) -> str:
    """The interval in percentage points, ``-0.72 to +3.81``, or that it is missing."""
    if found.low is None:
        return MISSING
    low, high = (_percent(value, signed=True) for value in (found.low, found.high))
    return f"{low} to {high}"


def _with_interval(found: Paired) -> str:
    if found.low is None:
        return MISSING
    return f"{_percent(found.effect, signed=True)} ({interval(found)})"


def _stages(values: Sequence[float | None]) -> str:
    return " + ".join(MISSING if v is None else f"{v:.0f}" for v in values) or MISSING


def _ratio(ours: float | None, base: float | None) -> str:
    return MISSING if ours is None or not base else f"{ours / base:.2f}"
