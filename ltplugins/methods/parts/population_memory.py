# SPDX-License-Identifier: MIT
"""GH's per-image memory and its prior, whole on every rank or sharded over the ranks.

Whole, every rank does the same update from the gathered batch. Sharded
(``method_kwargs.gh.memory_sharded``), rank r of W keeps the rows of the images i with i mod W = r,
updates those of them that are in the gathered batch, and the prior's counts, whole numbers, are
added over the ranks: memory, prior and loss are those of the whole memory, bit for bit.

A checkpoint holds the whole memory under the usual keys. It can be resumed with another number of
ranks, or without sharding.

Legend: B global batch, K directions, N training images, W ranks.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ltplugins.core.distributed import gather_no_grad, is_distributed, rank, world_size
from ltplugins.losses.gh import direction_counts, largest_shares, prior_from_counts
from ltplugins.losses.terms.memory import update_memory
from ltplugins.methods.wrapper import Wrapper

_SHARDED = ("gh_memory", "gh_memory_filled")
_CHUNK_BYTES = 64 * 2**20  # of a rank, a time: what saving needs beside the whole memory on rank 0


class PopulationMemory(Wrapper):
    """The part of GH that remembers images; ``self.gh`` holds the options."""

    gh: Any
    gh_prior: Tensor  # Float[K], sums to 1
    gh_prior_is_set: Tensor  # Bool[]
    gh_memory: Tensor  # [N K] in memory_dtype; sharded, this rank's rows
    gh_memory_filled: Tensor  # Bool[N], likewise
    _ranks_are_known = False
    _prior_was_set = False  # what gh_prior_is_set says, where the device need not be asked

    def allocate_per_sample(self, num_samples: int) -> None:
        """(Re)allocate the memory, empty, for N images (0: as soon as N is known)."""
        rows, device = num_samples, self.gh_prior.device
        if self.gh.memory_sharded:
            # Before the ranks know of one another each would take the whole.
            rows = len(_own(num_samples)) if self._ranks_are_known or is_distributed() else 0
        dtype = getattr(torch, self.gh.memory_dtype)
        memory = torch.zeros(rows, self.gh.num_directions, dtype=dtype, device=device)
        self.register_buffer("gh_memory", memory)
        self.register_buffer("gh_memory_filled", torch.zeros(rows, dtype=torch.bool, device=device))

    def setup(self, stage: str) -> None:
        """The process group is there: take this rank's share."""
        self._ranks_are_known = True
        if self.gh.memory_sharded and len(self.gh_memory) != len(_own(self.allocated_rows)):
            self.allocate_per_sample(self.allocated_rows)
        super().setup(stage)

    def remember(self, indexes: Tensor, logits: Tensor, momentum: float) -> None:
        """Move the rows of a global batch's images towards their logits by an EMA.

        Args:
            indexes: Int[B]; N and more are no training images and have no row.
            logits: Float[B K], without gradient.
        """
        rows = indexes
        if self.gh.memory_sharded:
            is_own = (indexes % world_size() == rank()) & (indexes < self.allocated_rows)
            # Another rank's image is to this rank what an OOD image is: a row beyond the last.
            rows = torch.where(is_own, indexes // world_size(), len(self.gh_memory))
        update_memory(self.gh_memory, self.gh_memory_filled, rows, logits, momentum)

    def recompute_prior(self) -> None:
        """Set the prior to the shares of the images; every rank must take part."""
        counts = direction_counts(self.gh_memory, self.gh_memory_filled)
        if self.gh.memory_sharded and is_distributed():
            dist.all_reduce(counts)
        self.gh_prior.copy_(prior_from_counts(counts, self.gh.prior_floor))
        self.gh_prior_is_set.fill_(True)
        self._prior_was_set = True

    def log_prior(self) -> None:
        """Log train_gh_prior_top10_epoch to _top90_epoch: what part of the images the largest 10 to
        90 % of the directions hold. To be called at the end of an epoch with a new prior."""
        shares = {
            f"train_gh_prior_top{10 * n}_epoch": largest_shares(self.gh_prior, n)
            for n in range(1, 10)
        }
        self.log_dict(shares, batch_size=1, sync_dist=False)  # equal on every rank

    def knows_prior(self) -> bool:
        """Whether the prior was ever computed; a GPU is waited for until it was."""
        self._prior_was_set = self._prior_was_set or bool(self.gh_prior_is_set)
        return self._prior_was_set

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the whole memory into the checkpoint that rank 0 writes; all ranks take part."""
        super().on_save_checkpoint(checkpoint)
        if self.gh.memory_sharded and is_distributed():
            state = checkpoint["state_dict"]
            for name in _SHARDED:
                state[name] = join_shards(state[name], self.allocated_rows)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep this rank's rows of the whole memory."""
        super().on_load_checkpoint(checkpoint)
        self._prior_was_set = False  # as the checkpoint says
        if self.gh.memory_sharded:
            state = checkpoint["state_dict"]
            for name in _SHARDED:
                state[name] = state[name][rank() :: world_size()].clone()


def join_shards(shard: Tensor, num_rows: int) -> Tensor:
    """The whole of which each rank holds every W-th row: on rank 0, on the CPU.

    Args:
        shard: [own rows ...] of this rank, contiguous.
        num_rows: of the whole.

    Returns:
        [num_rows ...] on rank 0; the shard itself on the others, which have nothing to write.
    """
    shards = [_own(num_rows, r) for r in range(world_size())]
    assert len(shard) == len(shards[rank()])
    rows = _as_bytes(shard)
    whole = torch.empty(num_rows if rank() == 0 else 0, *shard.shape[1:], dtype=shard.dtype)
    whole_rows = _as_bytes(whole)
    step = max(1, _CHUNK_BYTES // rows.shape[1])
    for start in range(0, len(shards[0]), step):
        parts = gather_no_grad(rows[start : start + step])
        if rank() == 0:
            chunks = [own[start : start + step] for own in shards]
            sizes = [len(chunk) for chunk in chunks]
            for chunk, part in zip(chunks, parts.split(sizes), strict=True):
                whole_rows[chunk.start : chunk.stop : chunk.step] = part.cpu()
    return whole if rank() == 0 else shard


def _as_bytes(x: Tensor) -> Tensor:
    """UInt8[N bytes of a row], the same memory: not every backend sends every type."""
    return x.view(torch.uint8).view(len(x), x.element_size() * math.prod(x.shape[1:]))


def _own(num_rows: int, of_rank: int | None = None) -> range:
    """The rows of a rank, this one unless told otherwise."""
    return range(rank() if of_rank is None else of_rank, num_rows, world_size())
