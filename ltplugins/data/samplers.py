# SPDX-License-Identifier: MIT
"""Samplers: which positions of the training subset are drawn in an epoch, and nothing else.

A sampler draws one global order from (seed, epoch); rank r of W takes every W-th position of it,
starting at r. The ranks' batches number b together are therefore positions b*B*W to (b+1)*B*W of
the global order, whatever W is: two processes see the batches that one process of twice the batch
size sees. No position is given to two ranks and none is dropped here; where N is no multiple of W,
the first N mod W ranks get one position more. Whole batches are dropped by the loader
(``drop_last``), in the same number on every rank. A sampler whose positions belong together in
groups (``paired``, ``two_branch``) is sharded by whole groups.

Legend: N training images, W ranks, B batch of one rank, C classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from torch.utils.data import Sampler

from ltplugins.core.errors import UserError, unknown
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import parse
from ltplugins.core.seeding import mix_seed


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
        """Positions of the epoch over all ranks, Int[total]; ``total`` must not depend on rng."""
        raise NotImplementedError

    @property
    def total(self) -> int:
        """Positions in an epoch over all ranks."""
        return self.size

    def positions(self) -> np.ndarray:
        """This rank's positions of the current epoch, Int[len(self)]."""
        rng = np.random.Generator(np.random.PCG64(mix_seed(self.seed, self.epoch)))
        return self._own(self.global_order(rng))

    def numbers(self) -> np.ndarray:
        """The places of :meth:`positions` in the global order, Int[len(self)]."""
        return self._own(np.arange(self.total))

    def arrange(self, count: int) -> np.ndarray:
        """The order of a batch's rows, as places in its ``count`` positions, Int[count]."""
        return np.arange(count)

    def _own(self, order: np.ndarray) -> np.ndarray:
        return order.reshape(-1, self.group)[self.rank :: self.world_size].reshape(-1)

    def __len__(self) -> int:
        return self.group * len(range(self.rank, self.total // self.group, self.world_size))

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions().tolist())


class ShuffleSampler(EpochSampler):
    """Every position once an epoch, in random order."""

    def global_order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.size)


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
        return np.stack([first, rng.integers(0, self.size, self.size)], axis=1).reshape(-1)


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
        return np.stack([agnostic, self.aware.global_order(rng)], axis=1).reshape(-1)

    def arrange(self, count: int) -> np.ndarray:
        """The class-agnostic half, then the class-aware half."""
        return np.concatenate([np.arange(0, count, 2), np.arange(1, count, 2)])


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
        """N + K."""
        return self.size + len(self.ood)

    def global_order(self, rng: np.random.Generator) -> np.ndarray:
        every = np.concatenate([np.arange(self.size), self.size + self.ood])
        return every[rng.permutation(len(every))]


@dataclass(frozen=True)
class SamplerConfig:
    """``data.sampler`` written as a block: a name and what it takes."""

    name: str
    gamma: Annotated[float, AtLeast(0)] = 0.0


SAMPLERS = ("class_aware", "id_plus_ood", "paired", "shuffle", "two_branch")


def build_sampler(
    name: str | Mapping[str, Any],
    targets: np.ndarray,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> EpochSampler:
    """Build a sampler by name (``shuffle``) or block (``{name: class_aware, gamma: 0.5}``).

    Raises:
        UserError: an unknown name or key, a gamma outside its range.
    """
    cfg = (
        SamplerConfig(name) if isinstance(name, str) else parse(SamplerConfig, name, "data.sampler")
    )
    if cfg.name == "shuffle":
        return ShuffleSampler(len(targets), seed=seed, rank=rank, world_size=world_size)
    if cfg.name == "paired":
        return PairedSampler(len(targets), seed=seed, rank=rank, world_size=world_size)
    if cfg.name == "class_aware":
        return ClassAwareSampler(targets, cfg.gamma, seed=seed, rank=rank, world_size=world_size)
    if cfg.name == "two_branch":
        return TwoBranchSampler(targets, cfg.gamma, seed=seed, rank=rank, world_size=world_size)
    if cfg.name == "id_plus_ood":
        return IdPlusOodSampler(len(targets), seed=seed, rank=rank, world_size=world_size)
    raise unknown("sampler", cfg.name, SAMPLERS)
