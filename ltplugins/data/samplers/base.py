# SPDX-License-Identifier: MIT
"""Samplers: which positions of the training subset are drawn in an epoch, and nothing else.

A sampler draws one global order from (seed, epoch); rank r of W takes every W-th position of it,
starting at r. The ranks' batches number b together are therefore positions b*B*W to (b+1)*B*W of
the global order, whatever W is: two processes see the batches that one process of twice the batch
size sees. No position is given to two ranks and none is dropped here; where N is no multiple of W,
the first N mod W ranks get one position more. Every rank has as many batches
(:func:`count_batches`); whether the last, short one is dropped is the loader's ``drop_last``. A
sampler whose positions belong together in groups (``paired``, ``two_branch``) is sharded by whole
groups.

Legend: N training images, W ranks, B batch of one rank, C classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from einops import rearrange
from torch.utils.data import Sampler

from ltplugins.core.errors import UserError
from ltplugins.core.seeding import mix_seed


@dataclass(frozen=True)
class Shard:
    """One process of a run: ``rank`` of ``world_size``, and the ``seed`` that all have."""

    rank: int = 0
    world_size: int = 1
    seed: int = 0


class EpochSampler(Sampler[int]):
    """Base: the order of an epoch, sharded over ranks. Subclasses define :meth:`global_order`.

    Args:
        size: N.
        seed: the run's seed; with the epoch it decides the order.
        rank: of this process.
        world_size: W.
    """

    group: ClassVar[int] = 1  # neighbours of the global order that stay together on one rank

    def __init__(self, size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is outside 0..{world_size - 1}")
        self.size, self.seed = size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; Lightning calls it."""
        self.epoch = epoch

    def global_order(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the positions of an epoch over all ranks: Int[total], whatever ``rng`` draws."""
        raise NotImplementedError

    @property
    def total(self) -> int:
        """Positions in an epoch over all ranks."""
        return self.size

    def positions(self) -> np.ndarray:
        """Give this rank's positions of the current epoch, Int[len(self)]."""
        rng = np.random.Generator(np.random.PCG64(mix_seed(self.seed, self.epoch)))
        return self._own(self.global_order(rng))

    def numbers(self) -> np.ndarray:
        """Give the places of :meth:`positions` in the global order, Int[len(self)]."""
        return self._own(np.arange(self.total))

    def arrange(self, count: int) -> np.ndarray:
        """Order a batch's rows, as places in its ``count`` positions, Int[count]."""
        return np.arange(count)

    def _own(self, order: np.ndarray) -> np.ndarray:
        groups = rearrange(order, "(n group) -> n group", group=self.group)
        return rearrange(groups[self.rank :: self.world_size], "n group -> (n group)")

    def __len__(self) -> int:
        return self.group * len(range(self.rank, self.total // self.group, self.world_size))

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions().tolist())


def count_batches(total: int, world_size: int, batch_size: int, drop_last: bool) -> int:
    """Batches of an epoch, as many on every rank: a rank that has one more would wait for ever.

    Without ``drop_last`` the last batch is what is left. It is left out where a rank has nothing
    for it, or a single image, which has no statistics for a BatchNorm.

    Args:
        total: positions of an epoch over all ranks.
        batch_size: of one rank.
    """
    whole, rest = divmod(total // world_size, batch_size)
    return whole + (not drop_last and rest > 1)


def require_step(images: int, batch_size: int, world_size: int, said: str = "") -> None:
    """Refuse a step of more images than there are, where ``batch_size`` is a key of a stage's own.

    Args:
        images: that are there.
        batch_size: of one rank.
        said: how many there are, in words.

    Raises:
        UserError: the ranks' batches together have more.
    """
    if batch_size * world_size > images:
        raise UserError(
            f"batch_size: fewer images than the batch: "
            f"{said or f'there are {images} to train on'} and {world_size} process(es) take "
            f"{batch_size} each. Set batch_size to {images // world_size} or less."
        )


def require_batch(sampler: EpochSampler, batch_size: int, drop_last: bool = True) -> None:
    """Refuse a batch size that no rank can fill, or an epoch without a batch.

    Raises:
        UserError: a rank has fewer images an epoch than a batch, or without ``drop_last`` than two.
    """
    per_rank = sampler.total // sampler.world_size
    if not drop_last and per_rank < min(batch_size, 2):
        raise UserError(
            f"too few images: {sampler.total} training images on {sampler.world_size} process(es); "
            f"each needs 2 for a batch. Keep more images (data.imbalance, data.fraction), or take "
            f"fewer processes (devices)."
        )
    if not drop_last:
        return
    if per_rank < batch_size:
        raise UserError(
            f"fewer images than the batch: {sampler.total} training images on "
            f"{sampler.world_size} process(es) give {per_rank} each, "
            f"optimizer.batch_size is {batch_size}. Set optimizer.batch_size to {per_rank} "
            f"or less, or keep more images (data.imbalance, data.fraction)."
        )
