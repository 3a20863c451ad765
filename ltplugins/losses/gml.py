# SPDX-License-Identifier: MIT
"""GML's losses: class likelihoods from stored keys, Bayes with the class prior, as pure functions.

Paper: Suh and Seo, "Long-Tailed Recognition by Mutual Information Maximization between Latent
Features and Ground-Truth Labels", ICML 2023, https://arxiv.org/abs/2305.01160
Official code: https://github.com/bluecdm/Long-tailed-recognition at 1ff816c

The equations are those of the code; the paper's own derivation has not been read.

Known differences from the official code:
- A class-wise log-sum-exp. The official one shifts by the maximum of the whole row, so that a class
  far from it underflows to log 0, and a class without keys is 0/0 = NaN.
- A class without keys *for an anchor* (none stored, or only the anchor's own image where that is
  left out) is masked: it takes no share of that anchor's probability. An anchor of such a class
  has loss 0, without gradient, and still counts in the mean: means over parts of a batch add up.
- float32 at least, also under autocast; a class without training images (prior 0) is allowed.

Which slots of the queue belong to which class: ``terms/class_rings.py``.

Legend: N anchors, K stored keys, D embedding dim, C classes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.precision import at_least_float32, full_precision
from ltplugins.losses.terms.distillation import distillation_loss
from ltplugins.losses.terms.masked import lowest


class ContrastiveTerms(NamedTuple):
    """The two scalars of :func:`contrastive_terms`: for the features, and for the temperature."""

    features: Tensor
    temperature: Tensor


class GMLTerms(NamedTuple):
    """The weighted total of :func:`gml_loss` and its unweighted parts; the total alone trains."""

    total: Tensor
    contrastive: Tensor
    temperature: Tensor
    supervised: Tensor
    distillation: Tensor


def class_log_mean_exp(
    logits: Tensor, key_targets: Tensor, *, num_classes: int, weights: Tensor | None = None
) -> Tensor:
    """Log of each class's weighted mean of exp(logits), the likelihood ell_ic.

    Each class is shifted by its own maximum. Memory is N x K: no one-hot K x C matrix, which has
    2 GB at iNaturalist's size.

    Args:
        logits: Float[N K], q_i . k_j / T.
        key_targets: Int[K], classes 0..C-1.
        num_classes: C.
        weights: Float[N K] or Bool[N K], >= 0, of each key in each anchor's means; None = all 1.

    Returns:
        Float[N C]; -inf, without gradient, where a class has no key of weight.
    """
    empty = logits.new_zeros(len(logits), num_classes)
    if weights is None:
        weights = logits.new_ones(1, 1).expand_as(logits)
    weights = weights.to(logits.dtype)
    logits = logits.masked_fill(weights == 0, -torch.inf)
    columns = key_targets.expand_as(logits)
    peak = torch.full_like(empty, -torch.inf)
    peak = peak.scatter_reduce(1, columns, logits.detach(), "amax", include_self=True)
    # A class without keys: any finite shift will do.
    peak = peak.masked_fill(peak.isneginf(), 0.0)
    shifted = (logits - peak.gather(1, columns)).exp() * weights
    total = empty.index_add(1, key_targets, shifted)
    count = empty.index_add(1, key_targets, weights)
    masked = count == 0
    mean = total.masked_fill(masked, 1.0) / count.masked_fill(masked, 1.0)
    return (mean.log() + peak).masked_fill(masked, -torch.inf)


def bayes_cross_entropy(likelihood: Tensor, targets: Tensor, prior: Tensor) -> Tensor:
    """-log p(y_i | q_i), p proportional to prior x likelihood, mean over all anchors.

    Args:
        likelihood: Float[N C], logarithms; -inf masks a class.
        targets: Int[N], 0..C-1.
        prior: Float[C], frequencies in the whole training set.

    Returns:
        Scalar. An anchor whose own class is masked has loss 0 and no gradient.
    """
    scores = likelihood + prior.to(likelihood.dtype).log()
    scores = scores.masked_fill(scores.isneginf(), lowest(scores))
    known = scores.gather(1, targets[:, None])[:, 0] > lowest(scores)
    loss = F.cross_entropy(scores, targets, reduction="none")
    return loss.masked_fill(~known, 0.0).mean()


@full_precision
def contrastive_terms(
    q: Tensor,
    keys: Tensor,
    key_targets: Tensor,
    key_indexes: Tensor,
    targets: Tensor,
    indexes: Tensor,
    prior: Tensor,
    *,
    temperature: Tensor,
    key_filled: Tensor | None = None,
) -> ContrastiveTerms:
    """L_con, which trains the features, and L_T, which trains the temperature alone.

    L_con counts every key, the query's own among them, with T detached. L_T leaves out the keys of
    the query's own image, whose likelihood says nothing about others, with dot products detached.

    Args:
        q: Float[N D], unit norm; targets, indexes: Int[N], its classes and image indexes.
        keys: Float[K D], unit norm; key_targets, key_indexes: Int[K], likewise.
        prior: Float[C].
        temperature: Float[], T > 0.
        key_filled: Bool[K], which keys there are; None for all. What is given of the others does
            not matter.
    """
    dots = q @ keys.T  # (N, K)
    others = indexes[:, None] != key_indexes[None, :]
    all_keys = None
    if key_filled is not None:
        all_keys, others = key_filled.expand_as(dots), others & key_filled
        key_targets = key_targets.where(key_filled, 0)
    num_classes = len(prior)
    temperature = temperature.to(dots.dtype)
    for_features = class_log_mean_exp(
        dots / temperature.detach(), key_targets, num_classes=num_classes, weights=all_keys
    )
    for_temperature = class_log_mean_exp(
        dots.detach() / temperature, key_targets, num_classes=num_classes, weights=others
    )
    return ContrastiveTerms(
        bayes_cross_entropy(for_features, targets, prior),
        bayes_cross_entropy(for_temperature, targets, prior),
    )


@full_precision
def logit_adjusted_cross_entropy(
    logits: Tensor, targets: Tensor, prior: Tensor, *, scale: float
) -> Tensor:
    """L_sup = CE(scale * logits + log prior, y), mean over the anchors.

    >>> cosines, prior = torch.zeros(1, 2), torch.tensor([0.9, 0.1])
    >>> loss = logit_adjusted_cross_entropy(cosines, torch.tensor([1]), prior, scale=30.0)
    >>> round(float(loss), 4)  # -log 0.1: without evidence the prior decides
    2.3026

    Args:
        logits: Float[N C], cosines.
        targets: Int[N], 0..C-1.
        prior: Float[C], frequencies in the whole training set.
        scale: 1/T_s.
    """
    return bayes_cross_entropy(logits * scale, targets, prior)


def gml_loss(
    logits: Tensor,
    targets: Tensor,
    prior: Tensor,
    contrastive: ContrastiveTerms | None,
    *,
    scale: float,
    teacher_logits: Tensor | None = None,
    distill_temperature: float = 4.0,
    sup_weight: float = 1.0,
    contrast_weight: float = 1.0,
    distill_weight: float = 0.0,
) -> GMLTerms:
    """gamma L_sup + beta (L_con + L_T) + alpha L_kd.

    Args:
        logits: Float[N C], cosines; targets: Int[N]; prior: Float[C].
        contrastive: of :func:`contrastive_terms`; None leaves the term out.
        scale: 1/T_s of the cosines.
        teacher_logits: Float[N C], scaled, of a frozen teacher or the EMA twin; None leaves
            the term out.
        sup_weight, contrast_weight, distill_weight: gamma, beta, alpha.
    """
    supervised = logit_adjusted_cross_entropy(logits, targets, prior, scale=scale)
    zero = torch.zeros_like(supervised)
    con, temperature = contrastive if contrastive is not None else (zero, zero)
    distillation = zero
    if teacher_logits is not None:
        scaled = at_least_float32(logits) * scale
        distillation = distillation_loss(scaled, teacher_logits, temperature=distill_temperature)
    total = (
        sup_weight * supervised
        + contrast_weight * (con + temperature)
        + distill_weight * distillation
    )
    return GMLTerms(total, con, temperature, supervised, distillation)
