# SPDX-License-Identifier: MIT
"""The images that others are compared with: a probe set, or the training set itself.

Legend: N images, D dim.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ltplugins.core.errors import UserError


class Features(NamedTuple):
    """Float[N D] features and their Int[N] targets, 0..C-1."""

    feats: Tensor
    targets: Tensor


@dataclass(frozen=True)
class BankImages:
    """Images that others are compared with.

    Attributes:
        name: ``probe`` or ``train``.
        features: theirs; None where they are not there.
        what: they are, in words; empty = said by their name.
        absent: why they are not there.
        places: Int[N K], see :func:`ltplugins.data.holdout.hold_out`; None = they have none.
    """

    name: str
    features: Features | None
    what: str = ""
    absent: str = ""
    places: np.ndarray | None = None

    def get(self) -> Features:
        """Their features.

        Raises:
            UserError: they are not there.
        """
        if self.features is not None:
            return self.features
        other = "train" if self.name == "probe" else "probe"
        raise UserError(
            self.absent
            or f"the evaluation needs the {self.name} set's features, which this data set does not "
            f"give; set eval.knn.bank and eval.linear.fit_on to '{other}'."
        )

    @property
    def size(self) -> int | None:
        """How many they are; None where they are not there."""
        return None if self.features is None else len(self.features.targets)

    def sizes(self, num_classes: int) -> list[int] | None:
        """Images of each class; None where they are not there."""
        if self.features is None:
            return None
        targets = self.features.targets
        return torch.bincount(targets[targets >= 0], minlength=num_classes).tolist()

    def describe(self) -> str:
        """What they are, how many, and whether their classes are of one size."""
        sizes = torch.bincount(self.get().targets)
        sizes = sizes[sizes > 0]
        low, high, total = int(sizes.min()), int(sizes.max()), int(sizes.sum())
        what = self.what or ("probe set" if self.name == "probe" else "training set")
        if low == high:
            return f"the balanced {what} ({total:,} images)"
        tail = "long-tailed " if self.name == "train" else ""
        return f"the {tail}{what} ({total:,} images), {low:,} to {high:,} a class"
