# SPDX-License-Identifier: MIT
"""The class prior of the training set, on any host: for methods that adjust by it.

Counts are of the whole training set, never of one rank's share or of what a sampler draws. They are
a buffer, so that a checkpoint holds them and a continuation on other data is noticed.

Legend: C classes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.transfer import runs_behind
from ltplugins.methods.method import Method


class ClassPrior(Method):
    """A method that knows ``class_counts`` (Int[C], zeros until known) and ``prior``.

    They come from ``method_kwargs.class_counts``, from the checkpoint, or from the data when
    training starts: some hosts know these only then.
    """

    class_counts: Tensor

    def setup_prior(self, counts: list[int] | None) -> None:
        """Register the buffer; with counts from the config, fill it."""
        self.register_buffer("class_counts", torch.zeros(self.num_classes, dtype=torch.long))
        if counts is not None:
            self.set_class_counts(torch.tensor(counts))

    def on_class_counts(self, counts: Tensor) -> None:
        """Called once, when the counts are known; not after a checkpoint, which has the result."""

    @property
    def prior(self) -> Tensor:
        """Float[C], the share of each class."""
        total = self.class_counts.sum()
        assert runs_behind(total) or total > 0, "set_class_counts() comes first"
        return self.class_counts / total

    def set_class_counts(self, counts: Tensor) -> None:
        """Take the counts, or hold them against those that are known already.

        Raises:
            UserError: they differ from the checkpoint's or the config's.
        """
        known, counts = self.class_counts, counts.to(self.class_counts.device)
        if not known.any():
            known.copy_(counts)
            self.on_class_counts(counts)
        elif not torch.equal(known, counts):
            raise UserError(
                f"{self.method_name}: the training images per class are {_shown(counts)}, but "
                f"{_shown(known)} in the checkpoint or method_kwargs.class_counts. Go on with the "
                f"same data, or start a new run."
            )

    def on_train_start(self) -> None:
        """Learn the counts from the data, if they tell.

        Raises:
            UserError: nobody knows them, or there are images without a label.
        """
        super().on_train_start()
        counts = training_class_counts(self.trainer, self.num_classes)
        if counts is None and not self.class_counts.any():
            raise UserError(
                f"{self.method_name} needs the number of training images of each class, and this "
                f"host's data set does not tell (it has no samples, targets or labels). Set "
                f"method_kwargs.class_counts to a list of them."
            )
        if counts is None:
            return
        missing = (self.num_samples or int(counts.sum())) - int(counts.sum())
        if missing:
            raise UserError(
                f"{self.method_name} learns from labels: {missing} of {self.num_samples} training "
                f"images have none. Leave them out."
            )
        self.set_class_counts(counts)


def training_class_counts(trainer: Any, num_classes: int) -> Tensor | None:
    """Counts of the set that ``trainer`` trains on, or None where the data do not tell.

    Our data module knows them. Under a host's own main the loader's data set is asked, through
    subsets and wrappers, for what torchvision's sets have: ``samples``, ``targets`` or ``labels``.

    Args:
        num_classes: C; labels outside 0..C-1 are not counted.

    Returns:
        Int[C] on the CPU.
    """
    counts = getattr(getattr(trainer, "datamodule", None), "class_counts", None)
    if counts is not None:
        return torch.as_tensor(np.asarray(counts), dtype=torch.long)
    labels = _labels(getattr(trainer.train_dataloader, "dataset", None))
    if labels is None:
        return None
    known = labels[(labels >= 0) & (labels < num_classes)]
    return torch.from_numpy(np.bincount(known, minlength=num_classes))


def _labels(dataset: Any) -> np.ndarray | None:
    """Int[N] of a data set of N images, or None."""
    if not hasattr(dataset, "__len__"):
        return None
    candidates: list[Any] = []
    # First: solo-learn's data.fraction shortens these and leaves the targets as they were.
    if hasattr(dataset, "samples"):
        candidates.append([sample[1] for sample in dataset.samples])
    candidates += [getattr(dataset, name, None) for name in ("targets", "labels")]
    for labels in candidates:
        if labels is not None and len(labels) == len(dataset):
            return np.asarray(labels).astype(np.int64)
    inner = _labels(getattr(dataset, "dataset", None))
    indices = getattr(dataset, "indices", None)
    return inner[np.asarray(indices)] if inner is not None and indices is not None else inner


def _shown(counts: Tensor) -> str:
    first = ", ".join(str(n) for n in counts[:6].tolist())
    return f"({first}{', ...' if len(counts) > 6 else ''}; {int(counts.sum())} in all)"
