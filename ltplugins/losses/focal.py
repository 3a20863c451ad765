# SPDX-License-Identifier: MIT
"""Focal NT-Xent: SimCLR's loss in which anchors that find their positive easily count less.

Papers: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017,
https://arxiv.org/abs/1708.02002; as a baseline over SimCLR in Zhou et al., "Combating
Representation Learning Disparity with Geometric Harmonization", NeurIPS 2023,
https://arxiv.org/abs/2310.17622
Official code: https://github.com/MediaBrain-SJTU/Geometric-Harmonization at 9f7057c

Known differences from the official code:
- Log space: 1 - p is the softmax mass of the negatives, not a difference, so that neither a
  temperature of 0.01 nor a perfect anchor gives NaN.
- Positives are rows of equal id, as in the host's NT-Xent; an image drawn twice into a batch is not
  its own negative.
- The weight carries gradient, as officially; ``detach_weight`` is an option of ours.

Legend: N local anchors, M candidates of all ranks, D embedding dim.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.precision import full_precision
from ltplugins.losses.terms.masked import masked_log_sum_exp, own_columns


class FocalTerms(NamedTuple):
    """Shares of each anchor's positives and negatives, of :func:`focal_terms`.

    Attributes:
        log_p: Float[N], log of the share of its positives; 0 for an anchor without one.
        log_q: Float[N], log of the share of its negatives, 1 - p; very low without negatives.
        has_positive: Bool[N].
    """

    log_p: Tensor
    log_q: Tensor
    has_positive: Tensor


class FocalLoss(NamedTuple):
    """The scalar of :func:`focal_nt_xent`, and the weight of each anchor in it, Float[N]."""

    loss: Tensor
    weight: Tensor


@full_precision
def focal_nt_xent(
    z: Tensor,
    ids: Tensor,
    *,
    temperature: float,
    gamma: float,
    detach_weight: bool = False,
    all_z: Tensor | None = None,
    all_ids: Tensor | None = None,
    offset: int = 0,
) -> FocalLoss:
    """``-mean (1 - p)^gamma log p`` over the anchors that have a positive; 0 if none has.

    With gamma = 0 it is NT-Xent.

    Args:
        z: Float[N D] anchors, any norm.
        ids: Int[N], rows with equal ids are positives of each other.
        temperature: > 0.
        gamma: >= 0.
        detach_weight: whether the weight is a constant to the gradient.
        all_z, all_ids: Float[M D] and Int[M], candidates of all ranks; default ``z`` and ``ids``.
        offset: row of ``all_z`` where the anchors begin.

    Returns:
        The loss, a scalar, and the anchors' weights; at least float32.

    Raises:
        UserError: a temperature or a gamma that cannot be.
    """
    check_focal(temperature, gamma)
    all_z, all_ids = (z, ids) if all_z is None or all_ids is None else (all_z, all_ids)
    terms = focal_terms(z, ids, all_z, all_ids, temperature=temperature, offset=offset)
    weight = focal_weight(terms, gamma, detach=detach_weight)
    return FocalLoss(focal_loss(terms, weight), weight)


@full_precision
def focal_terms(
    z: Tensor, ids: Tensor, all_z: Tensor, all_ids: Tensor, *, temperature: float, offset: int
) -> FocalTerms:
    """Log shares of positives and negatives in each anchor's softmax over the other candidates.

    Arguments as of :func:`focal_nt_xent`.
    """
    logits = F.normalize(z, dim=1) @ F.normalize(all_z, dim=1).T / temperature  # (N, M)
    itself = own_columns(logits, offset)
    positive = (ids[:, None] == all_ids[None, :]) & ~itself
    has_positive = positive.any(dim=1)
    total = masked_log_sum_exp(logits, itself)
    log_p = masked_log_sum_exp(logits, ~positive) - total
    log_q = masked_log_sum_exp(logits, positive | itself) - total
    return FocalTerms(log_p.masked_fill(~has_positive, 0.0), log_q, has_positive)


def focal_weight(terms: FocalTerms, gamma: float, *, detach: bool = False) -> Tensor:
    """``(1 - p)^gamma`` of each anchor, Float[N]; exactly 1 for gamma = 0.

    >>> import torch
    >>> shares = torch.tensor([0.9, 0.5])  # of the positives: the first anchor is easy
    >>> terms = FocalTerms(shares.log(), (1 - shares).log(), shares > 0)
    >>> [round(float(weight), 4) for weight in focal_weight(terms, 2.0)]
    [0.01, 0.25]
    """
    log_q = terms.log_q.detach() if detach else terms.log_q
    return (gamma * log_q).exp()


def focal_loss(terms: FocalTerms, weight: Tensor) -> Tensor:
    """The mean of ``-weight log p`` over the anchors with a positive; 0 if there is none."""
    return -(weight * terms.log_p).sum() / terms.has_positive.sum().clamp(min=1)


def check_focal(temperature: float, gamma: float) -> None:
    """Refuse options that cannot be.

    Raises:
        UserError: temperature <= 0 or gamma < 0.
    """
    if not temperature > 0:
        raise UserError(f"temperature: expected a number above 0, got {temperature}.")
    if not gamma >= 0:
        raise UserError(f"gamma: expected 0 or more, got {gamma}. 0 is the plain NT-Xent.")
