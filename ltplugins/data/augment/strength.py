# SPDX-License-Identifier: MIT
"""Strengths per training image: a method's memory says how strongly each image is augmented.

``TrainingSet.boost_views`` turns RandAugment into one whose probability and magnitude follow the
image's strength; ``TrainingSet.set_strength`` replaces the strengths between two epochs.

Legend: N training images, M images of an OOD pool, B batch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltplugins.data.augment.randaugment import MAX_MAGNITUDE
from ltplugins.data.augment.schema import RandAugmentConfig


@dataclass(frozen=True)
class Boost:
    """How a strength h in [0, 1] becomes RandAugment's probability and magnitude.

    Each of ``num_ops`` operations is applied with probability h, at magnitude
    ``min_magnitude`` + (30 - ``min_magnitude``) h u, where u is 1, or with ``random_factor`` one
    number from [0, 1] for all views of an image.
    """

    num_ops: int = 1
    min_magnitude: float = 10.0
    random_factor: bool = False
    ops: str = "bcl"

    def config(self) -> RandAugmentConfig:
        """Make the block that stands in for the YAML's; its probability is each image's own."""
        return RandAugmentConfig(1.0, self.num_ops, self.min_magnitude, self.ops)  # type: ignore[arg-type]

    def magnitude(self, strength: Any, factor: Any) -> Any:
        """Find the magnitude at ``strength`` with u = ``factor``; numbers or tensors."""
        if not self.random_factor:
            factor = 1.0
        return self.min_magnitude + (MAX_MAGNITUDE - self.min_magnitude) * strength * factor


class StrengthTable:
    """The strength of every index in memory that the worker processes share; 0 at first.

    Images of an OOD pool (index >= N) keep 0: nothing is known of them, they are not boosted.

    Args:
        boost: what a strength does.
        num_samples: N.
        num_ood: M.
    """

    def __init__(self, boost: Boost, num_samples: int, num_ood: int = 0) -> None:
        self.boost, self.num_samples = boost, num_samples
        # Shared, so that workers that live for many epochs see what set() writes.
        self._values = torch.zeros(num_samples + num_ood).share_memory_()

    def set(self, strengths: Tensor) -> None:
        """Replace the strengths, Float[N]; call it while no epoch is being read."""
        assert strengths.shape == (self.num_samples,), "one strength per training image"
        values = strengths.detach().float().cpu()
        assert bool(((values >= 0) & (values <= 1)).all()), "a strength outside [0, 1]"
        self._values[: self.num_samples] = values

    def of(self, positions: np.ndarray) -> np.ndarray:
        """Look up the strengths of these indexes, Float32[B]."""
        return self._values.numpy()[positions]
