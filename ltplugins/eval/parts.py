# SPDX-License-Identifier: MIT
"""The images of an evaluation: a run's parts where they lie now, held against its checkpoint.

Classes and their training counts, which make the groups, are those of the checkpoint. The training
images themselves are looked at only where they serve as a bank.
"""

import dataclasses
from collections.abc import Collection, Mapping
from functools import cached_property

from ltplugins.config.data import DataPaths
from ltplugins.core.errors import UserError
from ltplugins.data.imbalance import Split, make_split
from ltplugins.data.schema import BY_PATH
from ltplugins.data.sources.base import Source
from ltplugins.data.sources.build import build_source
from ltplugins.data.sources.named import Part
from ltplugins.data.sources.records import DataRecord
from ltplugins.eval.changes import require_same, what_changed
from ltplugins.runs.checkpoint import TrainedRun
from ltplugins.runs.facts import SplitFacts


class Parts:
    """The sources of an evaluation, by part.

    Attributes:
        data: the run's ``data`` block with what was given anew.
        notes: what a reader of the numbers must know of them.

    Args:
        run: that is evaluated.
        paths: what is given anew.
        banks: which parts images are compared with: ``probe``, ``train``, both or none.

    Raises:
        UserError: a path of a set that brings its own images.
    """

    def __init__(
        self, run: TrainedRun, paths: DataPaths | None = None, banks: Collection[str] = ()
    ) -> None:
        paths = paths or DataPaths()
        self.run, self.data, self.banks = run, paths.over(run.cfg.data), banks
        self.facts = run.origin.split if run.origin else None
        self.notes: list[str] = []
        self._is_moved = paths.train_path is not None

    def source(self, part: Part) -> Source:
        """The images of a part; ``train`` is the subset that was trained on.

        Raises:
            UserError: they are not there, have no labels, or are not those of the training.
        """
        if part == "test" and not self.data.has_test_part:
            raise UserError(
                f"the config of {self.run.path} names no test images. Give some: ltplugins "
                f"evaluate {self.run.path} data.val_path=PATH"
            )
        if part == "train":
            found = self._train.subset(self.split.indices)
        elif part == "probe" and not self.has_probe:
            found = self._train
        else:
            found = build_source(self.data, part, self._classes)
        if not (found.targets >= 0).all():
            raise UserError(_no_labels(part, self.run))
        return found

    @property
    def has_probe(self) -> bool:
        """Whether there is a probe set beside the training images."""
        return self.data.dataset not in BY_PATH or self.data.probe_path is not None

    @cached_property
    def split(self) -> Split:
        """The subset of the training images, as its config makes it now."""
        return make_split(self._train.targets, self._train.num_classes, self.data.imbalance)

    @cached_property
    def class_names(self) -> list[str]:
        """By class id."""
        if self.facts is not None and self._is_labelled:
            return self.facts.class_names
        if self.facts is None or not self.data.no_labels:
            return [str(name) for name in self._train.class_names]
        part: Part = "probe" if self.has_probe else "test"
        return [str(name) for name in build_source(self.data, part).class_names]

    @cached_property
    def class_counts(self) -> list[int] | None:
        """Training images by class id; None where nobody has told their classes."""
        if self.facts is not None and self._is_labelled:
            return self.facts.class_counts
        if self.data.no_labels:
            return None
        return [int(count) for count in self.split.class_counts]

    @property
    def split_facts(self) -> SplitFacts:
        """What the training images were, or are where the checkpoint does not say it."""
        return self.facts or SplitFacts.of(self._train, self.split)

    @property
    def record(self) -> DataRecord:
        """Facts of the data that the model was built for."""
        if self.facts is None or self._needs_train:
            return self._train.record
        return dataclasses.replace(
            self.source("test").record, num_classes=len(self.facts.class_names)
        )

    def describe(self) -> Mapping[str, str]:
        """What each bank is, in words."""
        if self.has_probe:
            whole = self.data.dataset in ("cifar10", "cifar100", "fashion_mnist", "stl10")
            probe = f"whole training part of {self.data.dataset}" if whole else "probe set"
        elif self.data.imbalance is None or self.data.imbalance.kind == "none":
            probe = "training set, for want of a probe set"
        else:
            probe = "training part before its split, for want of a probe set"
        return {"probe": probe, "train": "training set"}

    @property
    def _is_labelled(self) -> bool:
        return self.facts is not None and any(self.facts.class_counts)

    @property
    def _needs_train(self) -> bool:
        return "train" in self.banks or ("probe" in self.banks and not self.has_probe)

    @property
    def _classes(self) -> list[str] | None:
        """The classes to number labels by; None where the training part itself is asked."""
        unlabelled_alone = self.data.no_labels and not self._is_labelled and not self.has_probe
        return None if self.facts is None or unlabelled_alone else self.class_names

    @cached_property
    def _train(self) -> Source:
        """All images of the training part, which must be what was trained on."""
        source = build_source(self.data, "train")
        if self.facts is None:
            return source
        split = make_split(source.targets, source.num_classes, self.data.imbalance)
        if self._is_moved:
            changed = what_changed(self.facts, source, split)
            if changed is not None and not changed.is_of_classes:
                self.notes.append(
                    f"data.train_path was given for the evaluation and holds other data than those "
                    f"of the training ({changed.text}); groups are by the training's counts."
                )
                return source
        require_same(self.run, source, split)
        return source


def _no_labels(part: Part, run: TrainedRun) -> str:
    if part == "test":
        return "test images need labels, and some have none (-1). Leave those out of data.val_path."
    return (
        f"the {part} images have no labels, which kNN and probes learn from. Give labelled ones: "
        f"ltplugins evaluate {run.path} data.probe_path=PATH"
    )
