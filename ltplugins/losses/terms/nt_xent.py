# SPDX-License-Identifier: MIT
"""NT-Xent with its gradient in closed form, in two ways of holding little in memory.

Autograd would keep several (N, M) arrays for the backward pass, and most of the time would go into
moving these. The gradient by the logits is the softmax over all candidates less that over the
positives.

Legend: N local anchors (index i), M candidates of all ranks (j), D dim, n anchors of a block, P
pairs of positives.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ltplugins.losses.terms.masked import lowest

_ANCHORS = 256  # at a time; 256 x 1024 logits stay in a core's cache
_MOST_VIEWS = 4096  # of the symmetric form: 34 MB of float32
_LOWEST_EXPONENT = -80  # exp(-87) is the smallest normal float32


def nt_xent_of_units(
    z: Tensor, all_z: Tensor | None, ids: Tensor, all_ids: Tensor, temperature: float, offset: int
) -> tuple[Tensor, Tensor]:
    """Sum of the anchors' losses, and Int() how many of them have a positive.

    Args:
        z: Float[N D] anchors, unit norm.
        all_z: Float[M D] candidates, unit norm; ``None`` where they are the anchors.
        ids, all_ids: Int[N], Int[M]; equal ids are positives of each other.
        temperature: above 0.
        offset: row of ``all_z`` where the anchors begin.
    """
    # On a GPU the pairs' places would be waited for; at a very low temperature the similarities of
    # a view with all others may lie below what exp can hold, when 1 / temperature is the maximum.
    symmetric = z.device.type == "cpu" and len(z) <= _MOST_VIEWS
    if all_z is None and symmetric and -2 / temperature > _LOWEST_EXPONENT:
        return _SymmetricNTXent.apply(z, ids, temperature)
    all_z = z if all_z is None else all_z
    return _NTXent.apply(z, all_z, ids, all_ids, temperature, offset)


class _NTXent(torch.autograd.Function):
    """Some anchors at a time, so that the (N, M) logits are never held."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        all_z: Tensor,
        ids: Tensor,
        all_ids: Tensor,
        temperature: float,
        offset: int,
    ) -> tuple[Tensor, Tensor]:
        total, has_positive = z.new_zeros(()), ids.new_zeros(())
        grad_z, grad_all_z = torch.empty_like(z), torch.zeros_like(all_z)
        for start in range(0, len(z), _ANCHORS):
            rows = slice(start, start + _ANCHORS)
            logits = (z[rows] @ all_z.T).div_(temperature)
            losses, has, grad = _anchor_losses(
                logits, ids[rows, None] == all_ids, slice(start + offset, None)
            )
            total += losses.sum()
            has_positive += has.sum()
            grad_z[rows] = grad @ all_z
            grad_all_z.addmm_(grad.T, z[rows])
        ctx.save_for_backward(grad_z / temperature, grad_all_z / temperature)
        ctx.mark_non_differentiable(has_positive)
        return total, has_positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        grad_z, grad_all_z = ctx.saved_tensors
        return grad * grad_z, grad * grad_all_z, None, None, None, None


def _anchor_losses(
    logits: Tensor, positive: Tensor, itself: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of each anchor (n,), whether it has a positive Bool(n,), d loss / d logits (n, M).

    Args:
        logits: (n, M), changed.
        positive: Bool(n, M), candidates with the anchor's id, the anchor among them; changed.
        itself: where the candidates that are the anchors begin.
    """
    logits[:, itself].fill_diagonal_(lowest(logits))
    positive[:, itself].fill_diagonal_(False)
    has_positive = positive.any(dim=1)
    # A row of -inf alone has no softmax. An anchor without a positive is given all candidates as
    # positives: its two terms then cancel exactly.
    positive |= ~has_positive[:, None]
    among_positives = torch.where(positive, logits, lowest(logits))
    share, share_of_positives = logits.softmax(dim=1), among_positives.softmax(dim=1)
    losses = _log_sum_exp(logits, share) - _log_sum_exp(among_positives, share_of_positives)
    return losses, has_positive, share - share_of_positives


def _log_sum_exp(logits: Tensor, softmax: Tensor) -> Tensor:
    """Log-sum-exp of each row from its softmax: the largest logit less the log of its share."""
    return logits.amax(dim=1) - softmax.amax(dim=1).log()


class _Block(NamedTuple):
    """Some anchors i against the candidates j from the first of them on, the upper half's part.

    Attributes:
        rows: the n anchors i.
        after: the candidates j behind them, of which (j, i) is worked nowhere else.
        e: Float[n N-start], e_ij, 0 for the anchor itself; candidate start + j in column j.
        i, j: Int[P], row and column of each pair of positives in ``e``.
        e_positive: Float[P], e_ij of these pairs.
    """

    rows: slice
    after: slice
    e: Tensor
    i: Tensor
    j: Tensor
    e_positive: Tensor


class _SymmetricNTXent(torch.autograd.Function):
    """Anchors that are the candidates: similarities are symmetric, so one half of them is worked.

    With e_ij = exp((z_i.z_j - 1) / tau), Z_i its sum over all j but i and P_i that over i's
    positives, the loss of i is log(Z_i / P_i), and what pulls z_i and z_j together is
    e_ij (1/Z_i + 1/Z_j - [positive] (1/P_i + 1/P_j)), symmetric as well: one product with z is the
    gradient by the anchors and by the candidates.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        blocks = [_block(z, ids, start, temperature) for start in range(0, len(z), _ANCHORS)]
        z_sums, p_sums = z.new_zeros(2, len(z)).unbind()  # Z and P: Float[N]
        for block in blocks:
            _add_sums(block, z_sums, p_sums)
        has_positive = p_sums > 0
        total = torch.where(has_positive, z_sums.log() - p_sums.log(), 0.0).sum()
        per_z = torch.where(has_positive, z_sums.reciprocal(), 0.0)
        per_p = torch.where(has_positive, p_sums.reciprocal(), 0.0)
        grad = torch.zeros_like(z)
        for block in blocks:
            _add_gradient(block, z, per_z, per_p, grad)
        ctx.save_for_backward(grad / temperature)
        count = has_positive.sum()
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (grad_z,) = ctx.saved_tensors
        return grad * grad_z, None, None


def _block(z: Tensor, ids: Tensor, start: int, temperature: float) -> _Block:
    """Work the pairs of the anchors from ``start`` on with the candidates from there on."""
    stop = min(start + _ANCHORS, len(z))
    rows, size = slice(start, stop), stop - start
    shift = z.new_full((), -1 / temperature)
    e = torch.addmm(shift, z[rows], z[start:].T, alpha=1 / temperature).exp_()
    e[:, :size].fill_diagonal_(0.0)
    is_positive = ids[rows, None] == ids[start:]
    is_positive[:, :size].fill_diagonal_(False)
    i, j = is_positive.nonzero(as_tuple=True)
    return _Block(rows, slice(stop, None), e, i, j, e[i, j])


def _add_sums(block: _Block, z_sums: Tensor, p_sums: Tensor) -> None:
    """Add the block's e_ij to Z and, of positives, to P: to i's, and after the block to j's."""
    rows, after, e, i, j, e_positive = block
    start, size = rows.start, len(e)
    z_sums[rows] += e.sum(dim=1)
    z_sums[after] += e[:, size:].sum(dim=0)
    p_sums.index_add_(0, i + start, e_positive)
    mirrored = j >= size  # the square on the diagonal holds both orders of a pair
    p_sums.index_add_(0, j[mirrored] + start, e_positive[mirrored])


def _add_gradient(block: _Block, z: Tensor, per_z: Tensor, per_p: Tensor, grad: Tensor) -> None:
    """Turn e into the pull between i and j, and add its product with z: Float[N D], changed.

    Args:
        per_z, per_p: Float[N], 1/Z and 1/P, 0 for anchors without a positive.
    """
    rows, after, e, i, j, e_positive = block
    start, size = rows.start, len(e)
    e *= per_z[rows, None] + per_z[start:]
    e.index_put_((i, j), e_positive * -(per_p[i + start] + per_p[j + start]), accumulate=True)
    grad[rows].addmm_(e, z[start:])
    grad[after].addmm_(e[:, size:].T, z[rows])
