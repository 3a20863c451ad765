# SPDX-License-Identifier: MIT
"""``results.json``: the numbers of one evaluation, and what they are numbers of.

Accuracies are fractions from 0 to 1; what is not applicable is None.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ltplugins.core.records import Record
from ltplugins.metrics.collapse import Health
from ltplugins.runs.facts import Contents, Progress

# 2: which data, how far the run came, what could not be said. 3: the least class, calibration,
# which group is taken for which, the health of the features.
VERSION = 3
_GROUPS = ("many", "medium", "few")


@dataclass(frozen=True)
class Stat:
    """A mean over ``n`` repetitions; ``std`` is the sample's (n - 1), None for one."""

    mean: float | None
    std: float | None
    n: int


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, ``overall`` and of ``many``, ``medium`` and ``few``.

    Attributes:
        error: expected calibration error; None of a group without test images.
        bins: of confidence, of equal width: images, mean confidence, accuracy; see
            ``metrics.calibration``.
    """

    error: dict[str, float | None]
    bins: dict[str, list[list[float]]]

    def faults(self) -> Iterator[str]:
        """Bins of another form."""
        if any(len(row) != 3 for rows in self.bins.values() for row in rows):
            yield "bins: expected images, mean confidence and accuracy of each"


@dataclass(frozen=True)
class Calibration:
    """Reliability by group rule, as the classifier says it and after temperature scaling.

    Attributes:
        temperature: that logits are divided by, fitted on ``n`` held-out training images.
    """

    temperature: float
    n: int
    plain: dict[str, Reliability]
    scaled: dict[str, Reliability]


@dataclass(frozen=True)
class ProtocolResult:
    """What one protocol says.

    Attributes:
        settings: as they were chosen; n_train: images that it was fitted on; seeds: of its draws.
        groups: rule -> many, medium, few, group_std.
        per_class: by class id, over the repetitions.
        chosen_c, val_accuracy, converged: of linear probes, by seed.
        calibration: of classifiers that say how sure they are, with a temperature.
        harmonic, min_class: of the accuracies per class, their harmonic mean and the smallest.
        ece: expected calibration error over all test images.
        group_ece: rule -> the error over the images of many, medium, few.
        confusion: rule -> test images of many, medium and few (rows) taken for which (columns),
            added up over the repetitions; what is mistaken within a group is on the diagonal, too.

    What files of forms 1 and 2 do not have is None.
    """

    kind: str
    description: str
    settings: dict[str, Any]
    n_train: int
    seeds: list[int]
    n: int
    overall: Stat
    balanced: Stat
    class_std: Stat
    groups: dict[str, dict[str, Stat]]
    per_class: list[float | None]
    chosen_c: list[float] | None = None
    val_accuracy: list[list[float | None]] | None = None
    converged: list[bool] | None = None
    calibration: Calibration | None = None
    harmonic: Stat | None = None
    min_class: Stat | None = None
    ece: Stat | None = None
    group_ece: dict[str, dict[str, Stat]] | None = None
    confusion: dict[str, list[list[int]]] | None = None

    def faults(self) -> Iterator[str]:
        """Shares that are none, groups without their numbers, tables of another form."""
        for name in ("overall", "balanced"):
            mean = getattr(self, name).mean
            if mean is not None and not 0 <= mean <= 1:
                yield f"{name}: expected a mean from 0 to 1, got {mean}"
        if not all(share is None or 0 <= share <= 1 for share in self.per_class):
            yield "per_class: expected shares from 0 to 1"
        for rule, groups in self.groups.items():
            for name in (*_GROUPS, "group_std"):
                mean = groups[name].mean if name in groups else 2.0
                if mean is not None and not 0 <= mean <= 1:
                    yield f"groups.{rule}.{name}: expected a share from 0 to 1"
        for rule, table in (self.confusion or {}).items():
            if [len(row) for row in table] != [len(_GROUPS)] * len(_GROUPS):
                yield f"confusion.{rule}: expected rows and columns of {', '.join(_GROUPS)}"


@dataclass(frozen=True)
class GroupMembers:
    """The class ids of many, medium and few under one rule, which ``rule`` says in words."""

    rule: str
    many: list[int]
    medium: list[int]
    few: list[int]

    def of(self, name: str) -> list[int]:
        """The class ids of one group."""
        return {"many": self.many, "medium": self.medium, "few": self.few}[name]


@dataclass(frozen=True)
class Sizes:
    """Images of the training, the probe and the test set."""

    train: int
    probe: int
    test: int

    def faults(self) -> Iterator[str]:
        """Fewer images than none."""
        if min(self.train, self.probe, self.test) < 0:
            yield "sizes: expected numbers of 0 or more"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The numbers of an evaluation.

    Attributes:
        protocols: by a name that says what its number is, such as ``knn_k20_T0.07``.
        groups: by rule.
        class_counts: Int[C], training images by class id; all 0 where they are not known.
        notes: why a group is n/a.
        failed: protocol -> why there are no numbers of it.
        test_counts: Int[C], test images by class id; None in files of form 1.
    """

    protocols: dict[str, ProtocolResult]
    groups: dict[str, GroupMembers]
    class_counts: list[int]
    sizes: Sizes
    notes: list[str]
    failed: dict[str, str] = field(default_factory=dict)
    test_counts: list[int] | None = None
    version: int = VERSION

    def faults(self) -> Iterator[str]:
        """Lists that are not of all classes, ids of no class."""
        count = len(self.class_counts)
        if not count or min(self.class_counts) < 0:
            yield "class_counts: expected images of one class or more"
        for rule, members in self.groups.items():
            ids = [*members.many, *members.medium, *members.few]
            if not all(0 <= c < count for c in ids):
                yield f"groups.{rule}: expected class ids from 0 to {count - 1}"
        counts = self.test_counts
        if counts is not None and (len(counts) != count or min(counts, default=0) < 0):
            yield f"test_counts: expected a number of 0 or more for each of {count} classes"
        for name, entry in self.protocols.items():
            if len(entry.per_class) != count:
                yield f"protocols.{name}.per_class: expected a number for each of {count} classes"


@dataclass(frozen=True)
class SplitName:
    """Which training images: the hash of the split, and its description."""

    hash: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Results(Scores, Record):
    """The contents of ``results.json``.

    Attributes:
        run: its name; method: what a row is called by; epoch: completed ones.
        progress: epochs that were trained and that were planned.
        host: that it was trained with; None where the checkpoint does not say.
        features: part -> key of the cached features.
        options: the ``eval`` block.
        evaluated: when.
        contents: what the training images were.
        parts: part -> hash of the images and labels that were compared.
        data: keys of the ``data`` block that were given for the evaluation.
        health: of the features of test images.

    What files of form 1 do not have is None or empty.
    """

    FORM: ClassVar[int] = VERSION

    run: str
    method: str
    seed: int
    epoch: int
    host: str | None
    dataset: str
    split: SplitName
    class_names: list[str]
    features: dict[str, str]
    options: dict[str, Any]
    evaluated: str
    progress: Progress | None = None
    contents: Contents | None = None
    parts: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    health: Health | None = None
