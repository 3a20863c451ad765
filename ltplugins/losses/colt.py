# SPDX-License-Identifier: MIT
"""COLT: tail scores without labels, a budget per cluster, and a term that keeps OOD images apart.

Paper: Bai et al., "On the Effectiveness of Out-of-Distribution Data in Self-Supervised Long-Tail
Learning", ICLR 2023, https://arxiv.org/abs/2306.04934
Official code: https://github.com/JianhongBai/COLT at 3c4507b

Sign of a score: as in the code, a *low* score means tail (few close negatives). A secondary source
gives the paper's score with a minus sign; the budget is the same either way.

Known differences from the official code:
- ``topk`` may also be a share of the negatives, as a secondary source says of the paper; the code
  takes 10 whatever the batch. More than there are is all of them, there as here.
- What concerns budgets and the choice of images: see ``terms/ood_selection.py``.
- ``distribution_supcon_loss`` is 0 for a batch of one domain, also where that is OOD alone.
- Its denominator is the code's, all other views. What the secondary source writes, the pair and
  the other domain only, is the option ``cross_domain``; it is "-style", not checked on the paper.

Legend: B images, D dim.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from ltplugins.core.errors import UserError, unknown
from ltplugins.core.precision import full_precision
from ltplugins.losses.terms.masked import lowest, masked_log_sum_exp

DENOMINATORS = ("all", "cross_domain")


@torch.no_grad()
@full_precision
def tail_scores(z_1: Tensor, z_2: Tensor, *, temperature: float, topk: int | float) -> Tensor:
    """Score of each image: the sum of its top-k softmax probabilities over the negatives.

    g_i = sum of the k largest of (p(j | i, view 1) + p(j | i, view 2)) / 2 over the 2B - 2 views j
    of other images, where p is NT-Xent's softmax over all views but the anchor itself.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # two images of one kind, one alone
    >>> scores = tail_scores(z, z, temperature=0.5, topk=1)
    >>> [round(float(score), 3) for score in scores]
    [0.306, 0.306, 0.088]

    Args:
        z_1, z_2: Float[B D], the two views of the global batch, any norm.
        temperature: of NT-Xent.
        topk: k; an int is a number of negatives, a float in (0, 1] a share of them (at least one).

    Returns:
        g: Float[B] in [0, 1], at least float32, without gradient; LOW = tail. 0 for a batch of 1.

    Raises:
        UserError: views of different shape, a ``topk`` that is neither.
    """
    z = _unit_views(z_1, z_2)
    batch = len(z_1)
    k = _number_of_negatives(topk, 2 * batch - 2)
    # Some images at a time: their probabilities stay in a core's cache, and the (2B, 2B) logits of
    # the joined batch of many ranks need not fit in memory.
    scores = []
    for start in range(0, batch, _IMAGES):
        stop = min(start + _IMAGES, batch)
        views = slice(start, stop), slice(batch + start, batch + stop)
        (p, scale), (second, its_scale) = (_weights(z, rows, temperature) for rows in views)
        p.mul_(scale).addcmul_(second, its_scale)
        for rows in views:  # of the image itself: the anchor, and its positive
            p[:, rows].fill_diagonal_(0.0)
        scores.append(p.topk(k, dim=1, sorted=False).values.sum(dim=1) / 2)
    return torch.cat(scores)


_IMAGES = 256


def _weights(z: Tensor, rows: slice, temperature: float) -> tuple[Tensor, Tensor]:
    """Unnormalised softmax of the views ``rows`` over all views, and what normalises each row.

    Returns:
        Float[n 2B], exp(cosine / temperature) up to a factor a row, 0 for the view itself; and
        Float[n 1], the factors that make it a softmax.
    """
    if 2 / temperature > 80:  # float32's exp ends at -87
        shares = torch.softmax(_logits(z, rows, temperature), dim=1)
        return shares, shares.new_ones(len(shares), 1)
    # No cosine is above 1, so the maximum need not be looked for.
    shift = z.new_full((), -1 / temperature)
    weights = torch.addmm(shift, z[rows] / temperature, z.T).exp_()
    weights[:, rows].fill_diagonal_(0.0)
    return weights, weights.sum(dim=1, keepdim=True).reciprocal_()


def _number_of_negatives(topk: int | float, available: int) -> int:
    if isinstance(topk, float) and 0 < topk <= 1:
        # Ten decimals: 0.1 of 30 is 3, whatever the last bit of the product says.
        return min(max(1, math.floor(round(topk * available, 10))), available)
    if isinstance(topk, int) and not isinstance(topk, bool) and topk >= 1:
        return min(topk, available)
    raise UserError(
        f"tail_scores: topk: expected a number of negatives (10) or a share of them as a float "
        f"above 0 and up to 1.0 (0.01), got {topk!r}."
    )


@full_precision
def distribution_supcon_loss(
    z_1: Tensor,
    z_2: Tensor,
    is_ood: Tensor,
    *,
    temperature: float,
    denominator: Literal["all", "cross_domain"] = "all",
) -> Tensor:
    """Supervised contrastive loss with the domain, ID or OOD, as label.

    L = mean_i 1/|P(i)| sum_{p in P(i)} -log [exp(z_i.z_p / tau) / sum_a exp(z_i.z_a / tau)],
    P(i) all other views of i's domain; a runs over all views but i (``all``, the official code),
    or over p and the views of the other domain (``cross_domain``).

    Args:
        z_1, z_2: Float[B D], the two views of the global batch, any norm.
        is_ood: Bool[B].
        temperature: tau.
        denominator: see above.

    Returns:
        Scalar, at least float32; 0 where the batch holds one domain only: nothing to separate.

    Raises:
        UserError: shapes that do not fit, an unknown denominator.
    """
    if denominator not in DENOMINATORS:
        raise unknown("denominator", denominator, DENOMINATORS)
    if is_ood.shape != z_1.shape[:1]:
        raise UserError(
            f"distribution_supcon_loss: {len(z_1)} images, is_ood has shape {tuple(is_ood.shape)}."
        )
    z = _unit_views(z_1, z_2)
    logits = _logits(z, slice(0, len(z)), temperature)
    domain = repeat(is_ood.bool(), "image -> (view image)", view=2)
    same = domain[:, None] == domain[None, :]
    if denominator == "all":
        log_p = logits.log_softmax(dim=1)
    else:
        # The pair itself and the other domain: for every pair another normaliser.
        others = masked_log_sum_exp(logits, same)
        log_p = logits - torch.logaddexp(logits, others[:, None])
    positive = same.clone().fill_diagonal_(False)
    log_p = log_p.masked_fill(~positive, 0.0).sum(dim=1)
    loss = -(log_p / positive.sum(dim=1).clamp(min=1)).mean()
    return torch.where(domain.any() & ~domain.all(), loss, torch.zeros_like(loss))


def _unit_views(z_1: Tensor, z_2: Tensor) -> Tensor:
    """All 2B views, unit norm: Float[2B D]."""
    if z_1.shape != z_2.shape:
        raise UserError(
            f"the two views differ in shape, {tuple(z_1.shape)} and {tuple(z_2.shape)}."
        )
    return F.normalize(torch.cat([z_1, z_2]), dim=1)


def _logits(z: Tensor, rows: slice, temperature: float) -> Tensor:
    """Cosine / temperature of the views ``rows`` with all; the lowest value for the view itself."""
    logits = (z[rows] / temperature) @ z.T
    logits[:, rows].fill_diagonal_(lowest(logits))
    return logits
