# SPDX-License-Identifier: MIT
"""One evaluated run as a report needs it, and which runs make a row."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ltplugins.core.errors import UserError
from ltplugins.eval.gallery import Gallery
from ltplugins.eval.results import Scores, Stat
from ltplugins.eval.scores import mean_std
from ltplugins.runs.facts import Progress


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
        embedding: Float[N 2] of test images, with Int[N] ``embedding_targets`` and
            ``embedding_places``, their positions in the test set.
        embedding_method: how it was made ("t-SNE"), for the caption.
        class_names: one per class id; None = the ids.
        config: the configuration as text.
        info: whatever says what the numbers are: split, split hash, seed, host, commit.
        short_name: that need not be unique.
        progress: epochs that were trained and that were planned; None = not known.
        sees_labels: whether its method learns from labels.
        cost: of its training: ``hours`` and ``steps``, as far as they are known.
        prior: of Geometric Harmonization, epochs and Float[E 9]; see ``report.prior``.
        gallery: small copies of some of its images.
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
    embedding_places: Any = None
    embedding_method: str = ""
    class_names: list[str] | None = None
    config: str = ""
    info: dict[str, str] = field(default_factory=dict)
    short_name: str = ""
    progress: Progress | None = None
    sees_labels: bool = False
    cost: dict[str, float] = field(default_factory=dict)
    taken: Any = None
    prior: tuple[Sequence[float], Any] | None = None
    gallery: Gallery | None = None

    @property
    def row_name(self) -> str:
        """The row that this run belongs to."""
        return self.group_key or self.name

    @property
    def class_counts(self) -> list[int]:
        """Training images per class."""
        return self.results.class_counts


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


def value(run: RunResult, protocol: str, metric: str, rule: str) -> Stat:
    """A metric of one run, over its probe seeds."""
    entry = run.results.protocols.get(protocol)
    if entry is None:
        return mean_std([])
    if metric in ("overall", "balanced"):
        return getattr(entry, metric)
    # Kept from an evaluation under other rules, a protocol may lack this one.
    return entry.groups[rule][metric] if rule in entry.groups else mean_std([])
