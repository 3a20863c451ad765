# SPDX-License-Identifier: MIT
"""What an entry says of itself: the block ``ltplugins`` at the root of its ``config.json``.

Accuracies are fractions from 0 to 1; what is not applicable is None.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ltplugins.catalogue.files import CONFIG, FACTS, read_config
from ltplugins.catalogue.index import require_name
from ltplugins.core.errors import UserError
from ltplugins.core.records import Record, from_plain
from ltplugins.eval.results import SplitName, Stat
from ltplugins.runs.facts import Origin

GROUP_NAMES = ("many", "medium", "few")


@dataclass(frozen=True, kw_only=True)
class EntryRun:
    """One of the runs that an entry's numbers are of.

    Attributes:
        label: what tells it from the others, such as ``seed 1, class order 2``.
        is_shipped: whether the entry's weights are this run's.
        seed: of the run; class_order, split_seed, fold: of its data, where they have one.
        split: its training images.
        epochs: that it was trained; hours: of training, None where they are not known.
        hardware: that it was trained on, in words.
        commit: of the package; None where it was no checkout.
        ltplugins, torch: versions.
        scores: protocol -> ``overall``, ``balanced``, ``tercile.many`` and so on.
    """

    label: str
    is_shipped: bool
    seed: int
    split: SplitName
    epochs: int
    hardware: str
    host: str
    ltplugins: str
    torch: str
    scores: dict[str, dict[str, float | None]]
    hours: float | None = None
    commit: str | None = None
    class_order: int | str | None = None
    split_seed: int | None = None
    fold: int | None = None


@dataclass(frozen=True, kw_only=True)
class EntryProtocol:
    """A protocol's numbers over the runs of an entry.

    Attributes:
        description, settings, seeds: as in ``results.json``.
        overall, balanced: over runs; ``std`` is the sample's, None for one run.
        groups: rule -> many, medium, few, group_std, over runs.
    """

    kind: str
    description: str
    settings: dict[str, Any]
    seeds: list[int]
    overall: Stat
    balanced: Stat
    groups: dict[str, dict[str, Stat]]


@dataclass(frozen=True)
class Check:
    """The features of a picture that anybody can make; see ``zoo.check``.

    Attributes:
        picture: how it is made, in words.
        features: Float[D] in float32, on one thread of a CPU.
        torch, timm, pillow: versions, and cpu: the instructions that torch used there.
    """

    picture: str
    features: list[float]
    torch: str
    timm: str
    pillow: str
    cpu: str


@dataclass(frozen=True, kw_only=True)
class ZooFacts:
    """What an entry of a zoo says beyond an export.

    Attributes:
        name: of the entry.
        summary: of the method, one line; paper: its address.
        runs: that its numbers are of; one of them is shipped.
        protocols: by name.
        class_test_images: of each class, where the evaluation said it.
        config: that the shipped run was trained by, without places of a machine.
        check: that a copy is held to.
        license: of the weights; data_license: of the images, in words.
        added: the day.
        urls: where it lies, beside this zoo.
        half: whether its weights are kept in float16; they were rounded before they were measured.
        labels: whether it learned from labels of its training images; None where nobody said.
    """

    name: str
    summary: str
    runs: list[EntryRun]
    protocols: dict[str, EntryProtocol]
    config: dict[str, Any]
    check: Check
    license: str
    added: str
    paper: str | None = None
    data_license: str | None = None
    urls: list[str] = field(default_factory=list)
    half: bool = False
    labels: bool | None = None

    def faults(self) -> Iterator[str]:
        """None of the runs, or several, have the weights."""
        if sum(run.is_shipped for run in self.runs) != 1:
            yield "zoo.runs: expected one whose weights are shipped"
        for name, entry in self.protocols.items():
            if any(set(GROUP_NAMES) - set(groups) for groups in entry.groups.values()):
                yield f"zoo.protocols.{name}.groups: expected {', '.join(GROUP_NAMES)} in each"

    @property
    def shipped(self) -> EntryRun:
        """The run whose weights the entry has."""
        return next(run for run in self.runs if run.is_shipped)


@dataclass(frozen=True, kw_only=True)
class EntryFacts(Record):
    """The block ``ltplugins`` of ``config.json``.

    Attributes:
        ltplugins: version that wrote it.
        label, dataset, seed, epochs, origin: see :class:`ltplugins.zoo.backbone.Provenance`.
        num_features: width of the features.
        sha256, size: of ``model.safetensors``, in bytes; None where there is none.
        torchvision: the name that torchvision builds it by, where timm does not.
        small_stem: that the network of this name gets.
        zoo: of an entry of a zoo; None of other exports.
    """

    FORM: ClassVar[int] = 2  # 2: zoo
    version: int = FORM
    ltplugins: str
    label: str
    num_features: int
    dataset: str | None = None
    seed: int | None = None
    epochs: int | None = None
    sha256: str | None = None
    size: int | None = None
    torchvision: str | None = None
    small_stem: bool = False
    origin: Origin | None = None
    zoo: ZooFacts | None = None


def read_facts(folder: Path) -> tuple[dict[str, Any], EntryFacts]:
    """The whole ``config.json`` of an entry of a zoo, and its block ``ltplugins``.

    Raises:
        UserError: it is none, or damaged.
    """
    config = read_config(folder)
    if FACTS not in config:
        raise UserError(f"{folder / CONFIG} has no block '{FACTS}': it is no entry of a zoo.")
    facts = from_plain(EntryFacts, config[FACTS], folder / CONFIG, EntryFacts.FORM)
    require_zoo(facts)
    return config, facts


def require_zoo(facts: EntryFacts) -> ZooFacts:
    """The facts of an entry of a zoo.

    Raises:
        UserError: it is another export, or its name is none.
    """
    if facts.zoo is None or facts.origin is None:
        raise UserError(
            f"{facts.label}: expected an entry of a zoo, got another export. Add a run instead: "
            f"ltplugins zoo add RUN"
        )
    require_name(facts.zoo.name)  # it stands in lines that readers run
    return facts.zoo
