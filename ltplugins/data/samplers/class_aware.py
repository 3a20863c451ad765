# SPDX-License-Identifier: MIT
"""Draws by class: rare classes as often as common ones, or more often.

Legend: N training images, C classes.
"""

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.data.samplers.base import EpochSampler


class ClassAwareSampler(EpochSampler):
    """N draws with replacement: a class k with p_k = n_k^-gamma / sum, then a uniform image of it.

    Args:
        targets: Int[N]; images without label (-1) are never drawn.
        gamma: 0 = class-balanced, 1 = reversed frequency (ICCL's exponent).
        seed, rank, world_size: as :class:`EpochSampler`.

    Raises:
        UserError: no label at all.
    """

    def __init__(
        self,
        targets: np.ndarray,
        gamma: float = 0.0,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(len(targets), seed=seed, rank=rank, world_size=world_size)
        targets = np.asarray(targets)
        if not (targets >= 0).any():
            raise UserError("sampler 'class_aware' needs labels, and the data has none.")
        # Positions sorted by class; class k is members[starts[k] : starts[k] + counts[k]].
        order = np.argsort(targets, kind="stable")
        self._members = order[targets[order] >= 0]
        _, starts, counts = np.unique(targets[self._members], return_index=True, return_counts=True)
        weights = counts.astype(np.float64) ** -gamma
        self._starts, self._counts = starts, counts
        self.class_probs = weights / weights.sum()

    def global_order(self, rng: np.random.Generator) -> np.ndarray:
        drawn = rng.choice(len(self._counts), size=self.size, p=self.class_probs)
        offset = (rng.random(self.size) * self._counts[drawn]).astype(np.int64)
        return self._members[self._starts[drawn] + offset]
