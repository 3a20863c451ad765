# SPDX-License-Identifier: MIT
"""From runs to rows: what is averaged over what, and which number may be called best."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ltplugins.core.errors import UserError
from ltplugins.eval.results import Scores, Stat
from ltplugins.eval.scores import mean_std
from ltplugins.metrics.groups import GROUPS
from ltplugins.runs.facts import Progress

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
class RunResult:
    """One evaluated run, as a report needs it.

    Attributes:
        name: of the run, unique in a report.
        results: what `evaluate_features` returned.
        group_key: runs that share it become one row, mean ± std over runs; None = ``name``.
        pair_key: what a run shares with its counterparts in other rows ("permutation 2, seed 0");
            differences between rows are then taken pair by pair.
        curves: metric name -> (epochs, values), logged while training.
        health: likewise, of the features' health: ``rankme``, ``alignment`` and so on.
        embedding: Float[N 2] of test images, with Int[N] ``embedding_targets``.
        embedding_method: how it was made ("t-SNE"), for the caption.
        class_names: one per class id; None = the ids.
        config: the configuration as text.
        info: whatever says what the numbers are: split, split hash, seed, host, commit.
        short_name: that need not be unique.
        progress: epochs that were trained and that were planned; None = not known.
        sees_labels: whether its method learns from labels.
        cost: of its training: ``hours`` and ``steps``, as far as they are known.
        taken: Int[C C], test images of each class (rows) by the class that they are taken for.
    """

    name: str
    results: Scores
    group_key: str | None = None
    pair_key: str | None = None
    curves: dict[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    health: dict[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    embedding: Any = None
    embedding_targets: Any = None
    embedding_method: str = ""
    class_names: list[str] | None = None
    config: str = ""
    info: dict[str, str] = field(default_factory=dict)
    short_name: str = ""
    progress: Progress | None = None
    sees_labels: bool = False
    cost: dict[str, float] = field(default_factory=dict)
    taken: Any = None

    @property
    def row_name(self) -> str:
        """The row that this run belongs to."""
        return self.group_key or self.name

    @property
    def class_counts(self) -> list[int]:
        """Training images per class."""
        return self.results.class_counts


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


def group_runs(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Return the runs of each row, in order of appearance.

    Raises:
        UserError: no runs, two runs of one name, or runs that differ in their number of classes.
    """
    if not runs:
        raise UserError("there are no runs to report on; expected at least one results.json.")
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"two runs are called '{twice[0]}'; give each run of a report its own name."
        )
    sizes = {run.name: len(run.class_counts) for run in runs}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise UserError(f"runs of one report need the same number of classes, got {listed}.")
    rows: dict[str, list[RunResult]] = {}
    for run in runs:
        rows.setdefault(run.row_name, []).append(run)
    return rows


def common_rule(runs: Sequence[RunResult]) -> str:
    """Return the first group rule of all runs, and where there is one, of all their protocols.

    Raises:
        UserError: there is none; two definitions of "few" do not go into one table.
    """
    shared = [r for r in runs[0].results.groups if all(r in run.results.groups for run in runs)]
    entries = [entry for run in runs for entry in run.results.protocols.values()]
    for rule in shared:
        if all(rule in entry.groups for entry in entries):
            return rule
    if shared:
        return shared[0]
    listed = "; ".join(f"{run.name}: {', '.join(run.results.groups)}" for run in runs)
    raise UserError(
        f"the runs have no group rule in common ({listed}); evaluate them again with the same "
        "eval.groups."
    )


def summarise(runs: Sequence[RunResult], baseline: str | None = None) -> list[Section]:
    """Build one section per protocol; a row without that protocol shows n/a.

    Differences are to the row called ``baseline``, or to the first that has the protocol.
    """
    rows = group_runs(runs)
    rule = common_rule(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.results.protocols))
    sections = []
    for name in names:
        description = _describe(rows, name)
        table = [_row(label, members, name, rule) for label, members in rows.items()]
        mark_best(table)
        sections.append(
            Section(name, description, rule, table, _differences(rows, name, rule, baseline))
        )
    return sections


def _describe(rows: dict[str, list[RunResult]], protocol: str) -> str:
    """What a protocol is; where rows were scored on different banks, which row on which."""
    found: dict[str, list[str]] = {}
    for label, members in rows.items():
        entries = [run.results.protocols.get(protocol) for run in members]
        texts = [entry.description for entry in entries if entry]
        if texts:  # repetitions of one experiment differ in the images that they drew alone
            found.setdefault(texts[0], []).append(label)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{', '.join(labels)}: {text}" for text, labels in found.items())


def value(run: RunResult, protocol: str, metric: str, rule: str) -> Stat:
    """A metric of one run, over its probe seeds."""
    entry = run.results.protocols.get(protocol)
    if entry is None:
        return mean_std([])
    if metric in ("overall", "balanced"):
        return getattr(entry, metric)
    # Kept from an evaluation under other rules, a protocol may lack this one.
    return entry.groups[rule][metric] if rule in entry.groups else mean_std([])


def _row(label: str, members: Sequence[RunResult], protocol: str, rule: str) -> Row:
    cells = {}
    for metric in METRICS:
        values = [value(run, protocol, metric, rule) for run in members]
        stat = values[0] if len(values) == 1 else mean_std([v.mean for v in values])
        cells[metric] = Cell(stat.mean, stat.std)
    sizes = [_test_sizes(run, rule) for run in members]
    for metric in (*GROUPS, "overall", "balanced"):
        images = sum(size[metric] for size in sizes) / len(sizes)
        cells[metric].error = proportion_error(cells[metric].mean, images)
    cells["group_std"].error = _spread_error([cells[name] for name in GROUPS])
    return Row(label, len(members), cells)


def _test_sizes(run: RunResult, rule: str) -> dict[str, int]:
    """Test images overall and of each group; where they are not written, classes are alike."""
    results = run.results
    num_classes = max(len(results.class_counts), 1)
    counts = results.test_counts or [results.sizes.test // num_classes] * num_classes
    sizes = {name: sum(counts[c] for c in results.groups[rule].of(name)) for name in GROUPS}
    # A balanced mean is about as sure as if its smallest class were the size of all.
    even = min((n for n in counts if n), default=0) * sum(n > 0 for n in counts)
    return {**sizes, "overall": results.sizes.test, "balanced": even}


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


def _spread_error(groups: Sequence[Cell]) -> float:
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


def _differences(
    rows: dict[str, list[RunResult]], protocol: str, rule: str, baseline: str | None
) -> list[Row]:
    """Differences to a row, by default the first that has the protocol, over two or more pairs."""
    known = [
        name for name, runs in rows.items() if any(protocol in r.results.protocols for r in runs)
    ]
    base = baseline if baseline in known else known[0]
    others = [name for name in known if name != base]
    partners = {run.pair_key: run for run in rows[base] if run.pair_key is not None}
    table = []
    for label in others:
        pairs = [(run, partners[run.pair_key]) for run in rows[label] if run.pair_key in partners]
        if len(pairs) < 2:
            continue
        cells = {}
        for metric in METRICS:
            deltas = []
            for run, partner in pairs:
                ours = value(run, protocol, metric, rule).mean
                theirs = value(partner, protocol, metric, rule).mean
                deltas.append(None if ours is None or theirs is None else ours - theirs)
            stat = mean_std(deltas)
            cells[metric] = Cell(stat.mean, stat.std)
        table.append(Row(f"{label} \N{MINUS SIGN} {base}", len(pairs), cells))
    return table


def spread_note(sections: Sequence[Section]) -> str:
    """Say in one sentence what the ± of the tables is."""
    counts = {row.num_runs for section in sections for row in section.rows}
    if 1 not in counts:
        return "± is the sample standard deviation over training runs."
    if len(counts) > 1:
        return (
            "± is the sample standard deviation over training runs where n is given, and over the "
            "seeds of the probe where there is one run."
        )
    return (
        "± is the sample standard deviation over the seeds of the probe, on one training run each; "
        "the difference between two training runs is not in it."
    )
