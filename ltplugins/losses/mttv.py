# SPDX-License-Identifier: MIT
"""MTTV's filtered contrastive loss: InfoNCE without the extreme similarities, as pure functions.

Paper: "Maximally Useful and Minimally Redundant: The Key to Self Supervised Learning for Imbalanced
Data", v1 2025 ("more than two views", MTTV), v2 2026, https://arxiv.org/abs/2509.08469
Official code: https://github.com/anonymouspersoncscv/MTTV at 247efd5

The equations are those of the code; the paper's own have not been verified.

Known differences from the official code:
- The diagonal is excluded explicitly and the filter acts on the other entries only. The official
  CIFAR variant drops it as too similar *and* subtracts exp(1/t) from the denominator: its loss is
  negative or NaN for small batches (-3.73 where .62 is right at 16 embeddings).
- A batch none of whose positives passes the filter has loss 0 without gradient, officially +inf.
- Log space and float32 at least. ``mean_log`` and ``filter_positives=False`` are options of ours.

Legend: N pairs, A = 2N anchors, M candidates of all ranks (2N in one process), D embedding dim.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.errors import UserError, unknown
from ltplugins.core.precision import at_least_float32, full_precision
from ltplugins.losses.terms.masked import lowest, masked_log_sum_exp

Reduction = Literal["log_mean", "mean_log"]


class FilteredProbs(NamedTuple):
    """Each anchor's share of its positive behind the filter, of :func:`filtered_log_probs`.

    Attributes:
        log_p: Float[A], log of the positive's share; meaningless where ``has_positive`` is False.
        has_positive: Bool[A], whether the positive passed the filter.
        dropped: Float[], share of the entries (without the diagonal) that the filter dropped.
    """

    log_p: Tensor
    has_positive: Tensor
    dropped: Tensor


def fuse(first: Tensor, second: Tensor, *, concat: bool = False) -> Tensor:
    """One embedding of two images: the sum, unnormalised, or the concatenation.

    >>> fuse(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])).tolist()
    [[4.0, 6.0]]

    Args:
        first, second: Float[N D].

    Returns:
        Float[N D], or Float[N 2D] with ``concat``; at least float32.
    """
    first, second = at_least_float32(first), at_least_float32(second)
    return torch.cat([first, second], dim=1) if concat else first + second


@full_precision
def filtered_log_probs(
    u: Tensor,
    v: Tensor,
    *,
    temperature: float,
    lower: float,
    upper: float,
    filter_positives: bool = True,
    all_u: Tensor | None = None,
    all_v: Tensor | None = None,
    offset: int = 0,
) -> FilteredProbs:
    """Log share of each anchor's positive among the candidates that pass the filter.

    The 2N anchors are u and v; u_i and v_i are each other's positive. A candidate counts where
    lower <= |cosine| <= upper.

    Args:
        u, v: Float[N D], any scale; this rank's.
        temperature: t > 0.
        lower, upper: the band of |cosine| that is kept; 0 and 1 keep everything.
        filter_positives: whether the filter may drop a positive, as in the official code.
        all_u, all_v: Float[M/2 D], the candidates of all ranks; default ``u`` and ``v``.
        offset: row of ``all_u`` and ``all_v`` where this rank's begin.

    Returns:
        For the anchors u, then v; reduce with :func:`reduce_log_probs`.

    Raises:
        UserError: u and v differ in shape, or a temperature or a band that cannot be.
    """
    if u.shape != v.shape or u.ndim != 2 or len(u) == 0:
        raise UserError(
            f"filtered_log_probs: expected u and v of one shape (N, D) with N >= 1, got "
            f"{tuple(u.shape)} and {tuple(v.shape)}."
        )
    check_filter(temperature, lower, upper)
    all_u, all_v = (u, v) if all_u is None or all_v is None else (all_u, all_v)
    anchors, candidates = torch.cat([u, v]), torch.cat([all_u, all_v])  # (A, D), (M, D)
    similarity = F.normalize(anchors, dim=1) @ F.normalize(candidates, dim=1).T  # (A, M)
    u_columns = offset + torch.arange(len(u), device=u.device)
    v_columns = len(all_u) + u_columns
    own = torch.cat([u_columns, v_columns])[:, None]
    positive = torch.cat([v_columns, u_columns])[:, None]
    dropped = ~in_band(similarity, lower, upper)
    if not filter_positives:
        dropped.scatter_(1, positive, False)
    dropped.scatter_(1, own, False)
    share = dropped.sum() / (dropped.numel() - len(anchors))
    has_positive = ~dropped.gather(1, positive)[:, 0]
    logits = similarity / temperature
    total = masked_log_sum_exp(logits, dropped.scatter(1, own, True))
    return FilteredProbs(logits.gather(1, positive)[:, 0] - total, has_positive, share)


def reduce_log_probs(log_p: Tensor, has_positive: Tensor, reduction: Reduction) -> Tensor:
    """One loss from the log shares of all anchors of all ranks.

    ``log_mean``: -log of the mean share over all anchors; a dropped positive counts as share 0.
    It is the official form, and it is not additive: averaging ranks' losses gives another number.
    ``mean_log``: the usual mean of -log over the anchors whose positive passed the filter.
    Where none did, the loss is 0 and has no gradient.

    Args:
        log_p: Float[A].
        has_positive: Bool[A].

    Raises:
        UserError: an unknown reduction.
    """
    if reduction == "log_mean":
        total = log_p.masked_fill(~has_positive, lowest(log_p)).logsumexp(dim=0)
        loss = math.log(len(log_p)) - total
    elif reduction == "mean_log":
        loss = -log_p.masked_fill(~has_positive, 0.0).sum() / has_positive.sum().clamp(min=1)
    else:
        raise unknown("reduction", reduction, ("log_mean", "mean_log"))
    return torch.where(has_positive.any(), loss, torch.zeros_like(loss))


def in_band(similarity: Tensor, lower: float, upper: float) -> Tensor:
    """Which cosines satisfy lower <= |cosine| <= upper; without gradient, any shape.

    The cosine of a vector with itself may come out above 1 by rounding; ``upper=1`` keeps it.

    >>> in_band(torch.tensor([0.05, 0.5, -0.5, 0.95]), 0.1, 0.9).tolist()
    [False, True, True, False]
    """
    size = similarity.detach().abs().clamp(max=1.0)
    return (size >= lower) & (size <= upper)


def check_filter(temperature: float, lower: float, upper: float) -> None:
    """Refuse a temperature or a band that cannot be.

    Raises:
        UserError: temperature <= 0, or not 0 <= lower < upper.
    """
    if not temperature > 0:
        raise UserError(f"temperature: expected a number above 0, got {temperature}.")
    if not 0 <= lower < upper:
        raise UserError(
            f"lower and upper: expected 0 <= lower < upper, got {lower} and {upper}. "
            f"lower=0 and upper=1 keep every similarity."
        )
