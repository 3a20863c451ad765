# SPDX-License-Identifier: MIT
"""``results.json``: the numbers of one evaluation, and what they are numbers of.

Accuracies are fractions from 0 to 1; what is not applicable is None.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltplugins.core.files import write_json
from ltplugins.core.records import read_record, to_plain

VERSION = 1


@dataclass(frozen=True)
class Stat:
    """A mean over ``n`` repetitions; ``std`` is the sample's (n - 1), None for one."""

    mean: float | None
    std: float | None
    n: int


@dataclass(frozen=True)
class ProtocolResult:
    """What one protocol says.

    Attributes:
        settings: as they were chosen; n_train: images that it was fitted on; seeds: of its draws.
        groups: rule -> many, medium, few, group_std.
        per_class: by class id, over the repetitions.
        chosen_c, val_accuracy, converged: of linear probes, by seed.
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


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The numbers of an evaluation.

    Attributes:
        protocols: by a name that says what its number is, such as ``knn_k20_T0.07``.
        groups: by rule.
        class_counts: Int[C], training images by class id.
        notes: why a group is n/a.
    """

    protocols: dict[str, ProtocolResult]
    groups: dict[str, GroupMembers]
    class_counts: list[int]
    sizes: Sizes
    notes: list[str]
    version: int = VERSION


@dataclass(frozen=True)
class SplitName:
    """Which training images: the hash of the split, and its description."""

    hash: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Results(Scores):
    """The contents of ``results.json``.

    Attributes:
        run: its name; method: what a row is called by; epoch: completed ones.
        host: that it was trained with; None where the checkpoint does not say.
        features: part -> key of the cached features.
        options: the ``eval`` block.
        evaluated: when.
    """

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

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read a results.json.

        Raises:
            UserError: it is absent, damaged, or of a newer form.
        """
        return read_record(cls, path, VERSION)

    def write(self, path: Path) -> None:
        """Write results.json, whole or not at all."""
        write_json(path, to_plain(self))
