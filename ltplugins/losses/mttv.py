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

Legend: N pairs, A anchors, M candidates of all ranks (2N in one process), D embedding dim.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.errors import UserError, unknown
from ltplugins.core.precision import at_least_float32

Reduction = Literal["log_mean", "mean_log"]


class FilteredProbs(NamedTuple):
    """What :func:`filtered_log_probs` found for each anchor.

    Attributes:
        log_p: Float[A], log of the positive's share; meaningless where ``has_positive`` is False.
        has_positive: Bool[A], whether the positive passed the filter.
        dropped: Float[], share of the entries (without the diagonal) that the filter dropped.
    """

    log_p: Tensor
    has_positive: Tensor
    dropped: Tensor


def fuse(first: Tensor, second: Tensor, *, concat: bool = False) -> Tensor:
    """One embedding of two images (step 4): the sum, unnormalised, or the concatenation.

    Args:
        first, second: Float[N D].

    Returns:
        Float[N D], or Float[N 2D] with ``concat``; at least float32.
    """
    first, second = at_least_float32(first), at_least_float32(second)
    return torch.cat([first, second], dim=1) if concat else first + second


def filtered_contrastive_loss(
    u: Tensor,
    v: Tensor,
    *,
    temperature: float,
    lower: float,
    upper: float,
    reduction: Reduction = "log_mean",
    filter_positives: bool = True,
) -> Tensor:
    """Contrast 2N embeddings, u_i with v_i, without entries outside lower <= |cos| <= upper.

    Args:
        u, v: Float[N D], any scale; row i of one is the positive of row i of the other.
        temperature: t > 0.
        lower, upper: the band of |cosine| that is kept; 0 and 1 keep everything.
        reduction: see :func:`reduce_log_probs`.
        filter_positives: whether the filter may drop a positive, as in the official code.

    Returns:
        Scalar, at least float32.

    Raises:
        UserError: u and v differ in shape, or a temperature, band or reduction that cannot be.
    """
    if u.shape != v.shape or u.ndim != 2 or len(u) == 0:
        raise UserError(
            f"filtered_contrastive_loss: expected u and v of one shape (N, D) with N >= 1, got "
            f"{tuple(u.shape)} and {tuple(v.shape)}."
        )
    both = torch.cat([u, v])  # (2N, D)
    rows = torch.arange(len(both), device=u.device)
    probs = filtered_log_probs(
        both,
        both,
        rows,
        rows.roll(len(u)),
        temperature=temperature,
        lower=lower,
        upper=upper,
        filter_positives=filter_positives,
    )
    return reduce_log_probs(probs.log_p, probs.has_positive, reduction)


def filtered_log_probs(
    anchors: Tensor,
    candidates: Tensor,
    own: Tensor,
    positive: Tensor,
    *,
    temperature: float,
    lower: float,
    upper: float,
    filter_positives: bool = True,
) -> FilteredProbs:
    """Log share of each anchor's positive among the candidates that pass the filter (steps 5-7).

    One rank calls it with its own anchors and the candidates of all ranks.

    Args:
        anchors: Float[A D], any scale.
        candidates: Float[M D]; they contain the anchors.
        own: Int[A], the candidate that is the anchor itself.
        positive: Int[A], the candidate that is its positive.
        temperature, lower, upper, filter_positives: of :func:`filtered_contrastive_loss`.

    Raises:
        UserError: a temperature or a band that cannot be.
    """
    check_filter(temperature, lower, upper)
    with torch.autocast(anchors.device.type, enabled=False):
        anchors, candidates = at_least_float32(anchors), at_least_float32(candidates)
        similarity = F.normalize(anchors, dim=1) @ F.normalize(candidates, dim=1).T  # (A, M)
        dropped = ~in_band(similarity, lower, upper)
        if not filter_positives:
            dropped.scatter_(1, positive[:, None], False)
        dropped.scatter_(1, own[:, None], False)
        share = dropped.sum() / (dropped.numel() - len(anchors))
        has_positive = ~dropped.gather(1, positive[:, None])[:, 0]
        out = dropped.scatter(1, own[:, None], True)
        # The lowest finite value stands for -inf: its exponential is the same 0, and an anchor with
        # nothing left subtracts to a finite number, not to NaN.
        logits = (similarity / temperature).masked_fill(out, torch.finfo(similarity.dtype).min)
        log_p = logits.gather(1, positive[:, None])[:, 0] - logits.logsumexp(dim=1)
        return FilteredProbs(log_p, has_positive, share)


def reduce_log_probs(log_p: Tensor, has_positive: Tensor, reduction: Reduction) -> Tensor:
    """One loss from the log shares of all anchors of all ranks (step 8).

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
        lowest = torch.finfo(log_p.dtype).min
        total = log_p.masked_fill(~has_positive, lowest).logsumexp(dim=0)
        loss = math.log(len(log_p)) - total
    elif reduction == "mean_log":
        loss = -log_p.masked_fill(~has_positive, 0.0).sum() / has_positive.sum().clamp(min=1)
    else:
        raise unknown("reduction", reduction, ("log_mean", "mean_log"))
    return torch.where(has_positive.any(), loss, torch.zeros_like(loss))


def in_band(similarity: Tensor, lower: float, upper: float) -> Tensor:
    """Which cosines satisfy lower <= |cosine| <= upper; without gradient, any shape.

    The cosine of a vector with itself may come out above 1 by rounding; ``upper=1`` keeps it.
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
