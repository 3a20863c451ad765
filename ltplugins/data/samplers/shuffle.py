# SPDX-License-Identifier: MIT
"""Every position once an epoch: of the training images alone, or with images of an OOD pool.

Legend: N training images, K images of the pool that an epoch draws.
"""

import numpy as np

from ltplugins.data.samplers.base import EpochSampler


class ShuffleSampler(EpochSampler):
    """Every position once an epoch, in random order."""

    def global_order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.size)


class IdPlusOodSampler(EpochSampler):
    """Every training image and every image of an OOD subset once an epoch, in random order.

    Positions of the training images are 0..N-1, image j of the OOD pool has position N + j. The
    subset is empty at first: then the order is ShuffleSampler's.

    Attributes:
        ood: Int[K], positions in the OOD pool; :meth:`set_ood` replaces it.
    """

    ood = np.empty(0, dtype=np.int64)

    def set_ood(self, ood: np.ndarray) -> None:
        """Replace the OOD subset by other positions in the pool; call it between two epochs."""
        self.ood = np.asarray(ood, dtype=np.int64)

    @property
    def total(self) -> int:
        """Positions in an epoch over all ranks, N + K."""
        return self.size + len(self.ood)

    def global_order(self, rng: np.random.Generator) -> np.ndarray:
        every = np.concatenate([np.arange(self.size), self.size + self.ood])
        return every[rng.permutation(len(every))]
