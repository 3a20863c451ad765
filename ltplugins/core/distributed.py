# SPDX-License-Identifier: MIT
"""Rank, world size, and gathers that are the identity in a single process.

DDP averages gradients over ranks, so ``gather`` must hand every rank the *sum* of what all ranks'
losses say about its rows. Then a loss that each rank averages over its own anchors, or computes
whole on the joined batch, has the joined batch's gradient: neither halved nor doubled.

Legend: N local rows, M rows of all ranks together, W ranks.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

T = TypeVar("T")


def is_distributed() -> bool:
    """True inside an initialised process group of more than one rank."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's rank, 0 when not distributed."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of ranks, 1 when not distributed."""
    return dist.get_world_size() if is_distributed() else 1


def gather(x: Tensor) -> Tensor:
    """Concatenate every rank's rows in rank order; gradients flow back to their rank.

    Args:
        x: (N, ...), N may differ between ranks, the other dimensions may not.

    Returns:
        (M, ...); ``x`` itself when not distributed.
    """
    return gather_with_offset(x)[0]


def gather_no_grad(x: Tensor) -> Tensor:
    """``gather`` for labels, indexes and queue keys: the result carries no gradient."""
    with torch.no_grad():
        return gather(x)


def gather_with_offset(x: Tensor) -> tuple[Tensor, int]:
    """``gather(x)`` and the row at which this rank's own rows begin in it."""
    if not is_distributed():
        return x, 0
    sizes = _row_counts(x)
    return _Gather.apply(x, sizes), sum(sizes[: rank()])


def rank_share(count: Any, total: Any) -> Any:
    """What a mean over this rank's rows is multiplied by so that DDP's average is over all rows.

    It is W count / total: 1 where every rank has as many rows.

    Args:
        count: rows of this rank, a number or Int[].
        total: rows of all ranks, likewise.
    """
    return world_size() * count / total


def over_ranks(mean: Tensor, count: Tensor | int) -> Tensor:
    """Weigh a mean over this rank's rows so that DDP's average is the mean over all ranks' rows.

    Only where ranks hold different numbers of rows does that change anything: in a last, uneven
    batch, or where a mean is over the labelled rows alone.

    Args:
        mean: Float[], over this rank's rows; ``mean`` itself is returned when not distributed.
        count: how many rows that were.
    """
    if not is_distributed():
        return mean
    count = torch.as_tensor(count, device=mean.device, dtype=mean.dtype)
    total = count.clone()
    dist.all_reduce(total)
    return mean * rank_share(count, total.clamp(min=1))


def on_first_rank(work: Callable[[], T]) -> T:
    """Let rank 0 decide and tell the others: floating point need not agree between ranks.

    An error that the work raises is raised on every rank, so that none waits for an answer.

    Args:
        work: called on rank 0 alone; what it returns is pickled.
    """
    if not is_distributed():
        return work()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = work()
        except Exception as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def _row_counts(x: Tensor) -> list[int]:
    """Every rank's number of rows: the last batch of an epoch need not be even."""
    mine = torch.tensor([x.shape[0]], device=x.device)
    counts = [torch.zeros_like(mine) for _ in range(world_size())]
    dist.all_gather(counts, mine)
    return torch.cat(counts).tolist()


class _Gather(torch.autograd.Function):
    """All-gather of padded rows; backward sums over ranks and keeps the own rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        missing = max(sizes) - x.shape[0]
        padded = F.pad(x, [0, 0] * (x.ndim - 1) + [0, missing]) if missing else x.contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad.split(ctx.sizes)[rank()], None
