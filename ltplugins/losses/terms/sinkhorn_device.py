# SPDX-License-Identifier: MIT
"""Sinkhorn on a CUDA device without a wait for it: what is around the kernel.

Legend: P problems, B batch, K directions.
"""

import torch
from torch import Tensor

from ltplugins.core.kernels import building, give_up, is_given_up, runs_kernel
from ltplugins.losses.terms.masked import lowest

KERNEL, SMALL_KERNEL = "Sinkhorn", "Sinkhorn for small batches"
_MOST_DIRECTIONS = 4096  # a row of logits that one program holds
# What sinkhorn_fused.py takes: registers hold a few images a thread, and L1 2^16 entries or less.
_MOST_IMAGES, _MOST_ENTRIES = 1024, 2**17


def works_on_device(logits: Tensor) -> bool:
    """Whether :func:`assignments` can be asked for these logits: CUDA, and the kernel runs there.

    Without it the plain form waits for the GPU every ten pairs.
    """
    return logits.shape[-1] <= _MOST_DIRECTIONS and runs_kernel(KERNEL, logits)


def assignments(
    scores: Tensor,
    log_prior: Tensor,
    counted: Tensor | None,
    *,
    num_iters: int,
    negligible: float,
    tolerance: float | None,
    relaxed_pairs: int,
) -> Tensor:
    """The q of :func:`ltplugins.losses.terms.sinkhorn.sinkhorn`, with nothing asked of the device.

    Args:
        scores: Float[P B K], logits / epsilon, in the precision that is worked in.
        log_prior: Float[K]; -inf for directions that take nothing.
        counted: Bool[B], the rows that take part; None for all.
        num_iters: 1 or more.
        negligible: change of the potentials that no share shows.
        tolerance: as of ``sinkhorn``.
        relaxed_pairs: over-relaxed pairs, at most.

    Returns:
        Float[P B K].

    Raises:
        NoKernel: see there.
    """
    if counted is None:
        counted = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
    counted = counted | ~counted.any()  # no row at all is no problem: any will do
    log_target = log_prior + counted.sum().log()
    left_out = ~counted[:, None]
    columns = scores.masked_fill(left_out, lowest(scores)).logsumexp(dim=1, keepdim=True)
    # The first pair; less the largest of a row, so that what has weight is exact in float32.
    scores = scores + (log_target - columns)
    scores = scores - scores.amax(dim=2, keepdim=True)
    moved = torch.ops.ltplugins.sinkhorn_potentials(
        scores.contiguous(),
        log_target.exp(),
        counted.to(scores.dtype),
        num_iters,
        negligible,
        tolerance or 0.0,
        relaxed_pairs,
    )
    return torch.softmax(scores + moved[:, None, :], dim=2)


@torch.library.custom_op("ltplugins::sinkhorn_potentials", mutates_args=(), device_types="cuda")
def _potentials(
    scores: Tensor,
    target: Tensor,
    weights: Tensor,
    num_iters: int,
    negligible: float,
    tolerance: float,
    relaxed_pairs: int,
) -> Tensor:
    """One launch of a kernel; an operator of its own, so that torch knows its shape."""
    arguments = (scores, target, weights, num_iters, negligible, tolerance, relaxed_pairs)
    if _is_small(scores) and not is_given_up(SMALL_KERNEL):
        try:
            from ltplugins.losses.terms.sinkhorn_fused import column_potentials as fused

            return fused(*arguments)
        except Exception as error:  # whatever a compiler says
            give_up(SMALL_KERNEL, error)
    with building():
        from ltplugins.losses.terms.sinkhorn_kernel import column_potentials

        return column_potentials(*arguments)


def _is_small(scores: Tensor) -> bool:
    """Whether a problem is one for ``sinkhorn_fused.py``: near one multiprocessor, float32."""
    _, batch, directions = scores.shape
    fits = 0 < batch <= _MOST_IMAGES and batch * directions <= _MOST_ENTRIES
    return fits and scores.dtype == torch.float32


@_potentials.register_fake
def _(scores: Tensor, *_: object) -> Tensor:
    return scores.new_empty(scores.shape[0], scores.shape[2])
