# SPDX-License-Identifier: MIT
"""``run.json``: what was trained, with what, and when. Its first part is in every checkpoint."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ltplugins import __version__
from ltplugins.config.identity import identity_hash
from ltplugins.core.records import Record
from ltplugins.data.imbalance import Split
from ltplugins.data.sources.contents import labels_hash, pictures_hash

if TYPE_CHECKING:  # torch is not for those who read a record
    from ltplugins.data.sources.base import Source

VERSION = 2  # 2: what the data were, and how far a run came
# RunFacts.stopped of a trial, whose folder any other run may take.
TRIAL = "fast_dev_run"
_PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "hydra-core",
    "einops",
    "torchmetrics",
    "numpy",
    "scikit-learn",
    "pillow",
    "safetensors",
)


@dataclass(frozen=True)
class Contents:
    """What training images are, as hashes; see ``data.sources.contents``.

    Attributes:
        source: the labels of all images of the source, whichever a split chooses.
        labels: of the images that were chosen, in order.
        pictures: of these images, by their contents.
    """

    source: str
    labels: str
    pictures: str

    @classmethod
    def of(cls, source: "Source", split: Split) -> "Contents":
        """Those of a split; this reads its files where they are not known yet."""
        labels, pictures = (
            labels_hash(source.targets, split.indices),
            pictures_hash(source, split.indices),
        )
        return cls(labels_hash(source.targets), labels, pictures)


@dataclass(frozen=True)
class SplitFacts:
    """What a number needs to say about its training images; old files do not have all of it."""

    description: str
    hash: str
    num_samples: int
    class_counts: list[int]
    class_names: list[str]
    contents: Contents | None = None

    @classmethod
    def of(cls, source: "Source", split: Split) -> "SplitFacts":
        """The facts of a split of a source."""
        counts = [int(n) for n in split.class_counts]
        names = [str(n) for n in source.class_names]
        contents = Contents.of(source, split)
        return cls(split.description, split.hash, len(split.indices), counts, names, contents)

    def faults(self) -> Iterator[str]:
        """Counts that are not of the named classes."""
        if len(self.class_counts) != len(self.class_names) or not self.class_names:
            yield (
                f"class_counts: expected one for each of {len(self.class_names)} class_names, got "
                f"{len(self.class_counts)}"
            )


@dataclass(frozen=True)
class FirstStage:
    """The run that another one started from: its folder, its epochs, a hash of its weights."""

    run: str
    epochs: int
    weights: str


@dataclass(frozen=True)
class Progress:
    """How far a training has come, and what its config planned.

    Attributes:
        epochs: whole epochs, over all images, that are behind it.
        planned_epochs: ``max_epochs``.
        steps: optimiser steps.
        planned_steps: of all planned epochs.
    """

    epochs: int
    planned_epochs: int
    steps: int
    planned_steps: int

    @property
    def is_complete(self) -> bool:
        """Whether all that was planned is trained."""
        return self.epochs >= self.planned_epochs


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where weights come from.

    Attributes:
        method: its name.
        host: name and version of the host.
        split: the training images.
        label: what results are called by, where that is not the method.
        stage_1: of a second stage.
        resumed_from: of a run that went on from another one's checkpoint.
    """

    method: str
    host: str
    split: SplitFacts
    label: str | None = None
    stage_1: FirstStage | None = None
    resumed_from: FirstStage | None = None


@dataclass(frozen=True, kw_only=True)
class RunFacts(Origin, Record):
    """The contents of ``run.json``.

    Attributes:
        identity: what the numbers depend on, and ``identity_hash`` its hash.
        finished: when the last planned epoch was complete; None before.
        stopped: what ended the training for good before that (``max_steps=100``, a callback); None
            where the same command goes on.
        progress: how far it came, as of its last checkpoint.
        classifier: accuracies before and after a balancing, by group rule.
    """

    FORM: ClassVar[int] = VERSION
    identity_hash: str
    identity: dict[str, Any]
    command: list[str]
    started: str
    ltplugins: str
    git: str | None
    python: str
    machine: dict[str, Any]
    packages: dict[str, Any]
    version: int = VERSION
    finished: str | None = None
    stopped: str | None = None
    progress: Progress | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    classifier: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the same command has nothing more to train."""
        return self.finished is not None or self.stopped is not None

    @property
    def ending(self) -> str:
        """How a run that is over has ended, to follow its folder's name in a sentence."""
        if self.finished:
            return "is complete: nothing to train."
        done = self.progress
        far = f" after {done.epochs} of {done.planned_epochs} epochs" if done else ""
        way_out = "To train it anew: overwrite=true."
        return f"was stopped by {self.stopped}{far}: nothing to train. {way_out}"

    @classmethod
    def begin(cls, origin: Origin, identity: Mapping[str, Any]) -> "RunFacts":
        """The facts of a run that starts now, here."""
        return cls(
            **vars(origin),
            identity_hash=identity_hash(identity),
            identity=dict(identity),
            command=list(sys.argv),
            started=now(),
            ltplugins=__version__,
            git=_git_commit(),
            python=platform.python_version(),
            machine=_machine(),
            packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        )


def _machine() -> dict[str, Any]:
    import torch

    found = {"system": platform.platform(), "cpus": os.cpu_count()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """Commit of the package's own checkout, with "+dirty"; None when installed from a wheel."""
    here = Path(__file__).resolve().parent
    if not (here.parents[1] / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty=+dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
