# SPDX-License-Identifier: MIT
"""Verdicts on claims: the rows of their table, as text, CSV and picture."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from ltplugins.report.cells import MISSING
from ltplugins.report.paired import LEAST_PAIRS, Paired, Verdict
from ltplugins.report.style import ACCENT, PLAIN, SERIES, THEME, WIDTH

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
        steps: of the optimiser, the mean over cells.
        seconds: of the training, likewise; None where a cell was interrupted.
    """

    arm: str
    epochs: int
    mean: float | None = None
    steps: float | None = None
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
            "steps": f"{_whole(ours.steps)} / {_whole(base.steps)}",
            "time": _ratio(ours.seconds, base.seconds),
            "device": self.device or MISSING,
            "settings": self.settings,
            "data": self.data,
            "statement": self.statement,
            "paper": self.paper,
        }


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
        "places of the earlier ones again, with another seed, so that its interval is somewhat "
        "too narrow. Intervals are not corrected for the number of rows: of twenty without any "
        "effect, one is expected not to contain 0.",
        "Epochs and steps are ours / base. Time is ours over base, of training alone, where no "
        "cell was interrupted; cells ran beside others, so it is a rough number.",
    ]


def draw_claims(rows: Sequence[ClaimRow]) -> Figure | None:
    """Effects with their intervals, a line each; None where nothing is known yet."""
    known = [row for row in rows if row.found.effect is not None]
    if not known:
        return None
    figure = Figure(figsize=(WIDTH, 0.9 + 0.24 * len(known)), layout="constrained")
    ax = figure.subplots()
    for y, row in enumerate(known):
        found, colour = row.found, COLOURS[row.verdict]
        if found.low is not None and found.high is not None:
            ax.plot([100 * found.low, 100 * found.high], [y, y], color=colour, linewidth=1.6)
        ax.plot([100 * (found.effect or 0.0)], [y], "o", color=colour)
    ax.axvline(0, color=THEME["muted"], linewidth=1)
    device = len({(row.device, row.settings) for row in known}) > 1
    names = [_name(row, device) for row in known]
    ax.set_yticks(range(len(known)), names)
    ax.set_ylim(len(known) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    ax.set_xlabel("ours minus base, percentage points")
    for verdict, colour in COLOURS.items():
        ax.plot([], [], "o-", color=colour, label=verdict)
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def _name(row: ClaimRow, with_device: bool) -> str:
    tail = f", {row.device} {row.settings}".rstrip() if with_device else ""
    return f"{row.claim}: {row.measure} (n = {row.found.n}{tail})"


def _percent(value: float | None, signed: bool = False) -> str:
    if value is None:
        return MISSING
    text = f"{100 * value:+.2f}" if signed else f"{100 * value:.1f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _whole(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0f}"


def _ratio(ours: float | None, base: float | None) -> str:
    return MISSING if ours is None or not base else f"{ours / base:.2f}"
