# SPDX-License-Identifier: MIT
"""Orders whose neighbours belong together: an image beside a partner that is drawn for it.

Legend: N training images, B batch of one rank.
"""

import numpy as np
from einops import rearrange

from ltplugins.core.errors import UserError
from ltplugins.data.samplers.base import EpochSampler
from ltplugins.data.samplers.class_aware import ClassAwareSampler


class PairedSampler(EpochSampler):
    """Every position once an epoch, in random order, each followed by a partner (MTTV).

    The partner is uniform over the N images, with replacement, and may be the image itself. An
    epoch has 2N positions; a batch of an even size holds whole pairs, side by side.
    """

    group = 2

    @property
    def total(self) -> int:
        return 2 * self.size

    def global_order(self, rng: np.random.Generator) -> np.ndarray:
        first = rng.permutation(self.size)
        partners = rng.integers(0, self.size, self.size)
        return rearrange([first, partners], "place n -> (n place)")


class TwoBranchSampler(EpochSampler):
    """Every position once an epoch, in random order, each beside a class-aware draw (ICCL).

    The global order alternates: an image of the class-agnostic branch, a draw of
    :class:`ClassAwareSampler`. An epoch has 2N positions, ranks share whole pairs, and in a batch
    of B the loader puts the B/2 class-agnostic images first and the class-aware ones, their
    partners in the same order, into the second half.

    Args:
        targets, gamma: of :class:`ClassAwareSampler`; every image needs a label.
        seed, rank, world_size: as :class:`EpochSampler`.

    Raises:
        UserError: images without label.
    """

    group = 2

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
        unlabelled = int((np.asarray(targets) < 0).sum())
        if unlabelled:
            raise UserError(
                f"sampler 'two_branch' needs a label for every image; {unlabelled} of "
                f"{len(targets)} have none. Leave them out of the training list."
            )
        self.aware = ClassAwareSampler(targets, gamma)

    @property
    def total(self) -> int:
        return 2 * self.size

    def global_order(self, rng: np.random.Generator) -> np.ndarray:
        agnostic = rng.permutation(self.size)
        return rearrange([agnostic, self.aware.global_order(rng)], "branch n -> (n branch)")

    def arrange(self, count: int) -> np.ndarray:
        """Order a batch: its class-agnostic half, then its class-aware half."""
        return np.concatenate([np.arange(0, count, 2), np.arange(1, count, 2)])
