# SPDX-License-Identifier: MIT
"""Who leads and by how much: differences pair by pair, and what they allow to be said in words.

A pair is one split and one seed: two runs of it saw the same images in the same order of classes,
so that what is hard about them cancels out of their difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ltplugins.core.errors import unknown
from ltplugins.eval.scores import mean_std
from ltplugins.report.evaluated import RunResult, value
from ltplugins.report.paired import LEAST_PAIRS, Paired, paired

Rows = Mapping[str, Sequence[RunResult]]
# The order of a page: what a method for long tails is about comes first.
MEASURES = ("few", "medium", "many", "overall")


@dataclass(frozen=True)
class Effect:
    """A row against another by one measure.

    Attributes:
        row: its name.
        found: the differences' mean and its interval, as fractions.
        points: the differences of single pairs.
    """

    row: str
    found: Paired
    points: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What a protocol says of a measure, among rows that may be compared.

    Attributes:
        measure: ``few``, ``medium``, ``many`` or ``overall``.
        baseline: that the effects are over.
        effects: of the other rows, the highest first.
        leader: the row with the highest mean difference, the baseline itself being at 0.
        level: the leader's own mean, a fraction.
        rivals: rows whose difference to the leader has an interval that contains 0, or none.
    """

    measure: str
    baseline: str
    effects: list[Effect]
    leader: str
    level: float
    rivals: list[str]

    @property
    def pairs(self) -> int:
        """The fewest pairs that an effect is over."""
        return min((effect.found.n for effect in self.effects), default=0)

    def of(self, row: str) -> Effect:
        """The effect of a row."""
        return next(effect for effect in self.effects if effect.row == row)


def choose_baseline(rows: Rows, wanted: str | None) -> str:
    """Return the row that others are compared with: the first where none is asked for.

    Raises:
        UserError: no such row.
    """
    if wanted is not None and wanted not in rows:
        raise unknown("row for --baseline", wanted, rows)
    return wanted or next(iter(rows))


def effects(rows: Rows, protocol: str, rule: str, measure: str, baseline: str) -> list[Effect]:
    """Differences of every other row that pairs up with the baseline, the highest mean first."""
    found = []
    for row in rows:
        if row == baseline:
            continue
        points = _differences(rows[row], rows[baseline], protocol, rule, measure)
        if points:
            found.append(Effect(row, paired(points), points))
    return sorted(found, key=lambda effect: -(effect.found.effect or 0.0))


def _differences(
    ours: Sequence[RunResult], theirs: Sequence[RunResult], protocol: str, rule: str, measure: str
) -> list[float]:
    partners = {run.pair_key: run for run in theirs if run.pair_key is not None}
    points = []
    for run in ours:
        if run.pair_key not in partners:
            continue
        one = value(run, protocol, measure, rule).mean
        other = value(partners[run.pair_key], protocol, measure, rule).mean
        if one is not None and other is not None:
            points.append(one - other)
    return points


def answer(rows: Rows, protocol: str, rule: str, measure: str, baseline: str) -> Answer | None:
    """Who leads by a measure; None where no row pairs up with the baseline."""
    found = effects(rows, protocol, rule, measure, baseline)
    if not found:
        return None
    ahead = (found[0].found.effect or 0.0) > 0
    leader = found[0].row if ahead else baseline
    compared = [baseline, *(effect.row for effect in found)]
    rivals = []
    for row in compared:
        if row == leader:
            continue
        over = paired(_differences(rows[leader], rows[row], protocol, rule, measure))
        if over.low is None or over.low <= 0:
            rivals.append(row)
    levels = [value(run, protocol, measure, rule).mean for run in rows[leader]]
    return Answer(measure, baseline, found, leader, mean_std(levels).mean or 0.0, rivals)


def families(rows: Rows, baseline: str) -> list[tuple[Rows, str]]:
    """Rows that may be compared, each with its baseline: those that saw labels are apart.

    Rows that differ from the baseline in whether they did are compared with the first of their own.
    """
    parts: dict[bool, dict[str, Sequence[RunResult]]] = {}
    for row, members in rows.items():
        parts.setdefault(members[0].sees_labels, {})[row] = members
    own = rows[baseline][0].sees_labels
    order = sorted(parts, key=lambda sees: sees != own)
    return [(parts[k], baseline if k == own else next(iter(parts[k]))) for k in order]


def in_words(found: Answer) -> str:
    """Say who leads, by how much, how sure that is, and what cannot be told from it."""
    others = len(found.effects)
    if found.leader == found.baseline:
        nearest = found.effects[0]
        lead = (
            f"{found.leader} leads with {_percent(found.level)}; next is {nearest.row}, "
            f"{_told(nearest.found)}."
        )
    else:
        lead = (
            f"{found.leader} leads with {_percent(found.level)}, "
            f"{_told(found.of(found.leader).found)} on {found.baseline}."
        )
    if found.pairs < 2:
        return f"{lead} One pair of runs tells no method from another."
    if not found.rivals:
        return f"{lead} It is ahead of {'the other row' if others == 1 else 'every other row'}."
    shown = ", ".join(found.rivals[:4])
    more = f" and {len(found.rivals) - 4} more" if len(found.rivals) > 4 else ""
    if len(found.rivals) == others and others > 1:
        return f"{lead} Not distinguishable from any other row."
    return f"{lead} Not distinguishable from it: {shown}{more}."


def sides(found: Answer) -> str:
    """Say which rows are above the baseline, which below, and of how many it cannot be told."""
    above = [e.row for e in found.effects if e.found.low is not None and e.found.low > 0]
    below = [e.row for e in found.effects if e.found.high is not None and e.found.high < 0]
    open_ = len(found.effects) - len(above) - len(below)
    parts = [f"above it: {', '.join(above)}"] if above else []
    parts += [f"below it: {', '.join(below)}"] if below else []
    if not parts:
        return f"No row is distinguishable from {found.baseline}."
    parts += [f"not distinguishable: {open_} of {len(found.effects)}"] if open_ else []
    return f"Against {found.baseline}, {'; '.join(parts)}."


ALONE = (
    "No row shares a split and a seed with another: nothing can be compared pair by pair. Train "
    "the methods on the same seeds and class orders to be told who leads."
)


def caution(answers: Sequence[Answer]) -> str:
    """Say how far the verdicts may be trusted: the number of pairs, and of comparisons."""
    pairs = min((found.pairs for found in answers), default=0)
    if pairs < 2:
        return (
            "Of each comparison there is one pair of runs: a difference is shown and no interval. "
            f"A verdict needs several seeds or class orders, a claim {LEAST_PAIRS}."
        )
    count = sum(len(found.effects) for found in answers)
    chance = count * 0.05
    text = (
        "Differences are taken pair by pair, their 95 % intervals by Student's t. Not "
        "distinguishable means that the interval of the difference contains 0. "
        f"Of {count} intervals, {chance:.0f} would miss 0 by chance alone."
        if chance >= 1
        else "Differences are taken pair by pair, their 95 % intervals by Student's t. Not "
        "distinguishable means that the interval of the difference contains 0."
    )
    if pairs < LEAST_PAIRS:
        text += (
            f" With {pairs} pairs this is what these runs show, no claim: a sign-flip test cannot "
            f"reach p < 0.05 with fewer than {LEAST_PAIRS}."
        )
    return text


def _told(found: Paired) -> str:
    text = f"{_points(found.effect or 0.0)} points"
    if found.low is None or found.high is None:
        return f"{text} (one pair)"
    return f"{text} (95 % interval {_points(found.low)} to {_points(found.high)}, {found.n} pairs)"


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
