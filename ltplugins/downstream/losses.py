# SPDX-License-Identifier: MIT
"""Losses of a classifier on long-tailed labels, as pure functions.

Logit adjustment: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021,
https://arxiv.org/abs/2007.07314; at tau = 1 it is the balanced softmax of Ren et al., NeurIPS 2020,
https://arxiv.org/abs/2007.10740 (log counts and log shares differ by a constant, which the softmax
does not see). LDAM and deferred re-weighting: Cao et al., NeurIPS 2019,
https://arxiv.org/abs/1906.07413, with the weights of Cui et al., "Class-Balanced Loss Based on
Effective Number of Samples", CVPR 2019, https://arxiv.org/abs/1901.05555. Focal loss: Lin et al.,
ICCV 2017, https://arxiv.org/abs/1708.02002.

Known differences:
- Focal loss is that of a softmax over the classes; Lin et al. have one sigmoid per class. No alpha.
- A class without training images has no share of the adjusted softmax, no margin and no weight.

Legend: N batch, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.precision import at_least_float32, full_precision
from ltplugins.losses.focal import FocalTerms, focal_loss, focal_weight
from ltplugins.losses.terms.masked import lowest, masked_log_sum_exp


@full_precision
def logit_adjusted_loss(logits: Tensor, targets: Tensor, counts: Tensor, *, tau: float) -> Tensor:
    """Cross-entropy of logits + tau log prior (eq. 10 of Menon et al.), mean over the batch.

    >>> logits, counts = torch.zeros(1, 2), torch.tensor([90, 10])
    >>> loss = logit_adjusted_loss(logits, torch.tensor([1]), counts, tau=1.0)
    >>> round(float(loss), 4)  # -log 0.1
    2.3026

    Args:
        logits: Float[N C].
        targets: Int[N], or Float[N C], shares of the classes in mixed images.
        counts: Int[C], training images.
        tau: > 0.
    """
    return F.cross_entropy(shift_logits(logits, counts, tau), targets)


def post_hoc_adjusted(logits: Tensor, counts: Tensor, *, tau: float) -> Tensor:
    """Float[N C], logits - tau log prior (eq. 9): of a classifier trained on plain cross-entropy.

    >>> post_hoc_adjusted(torch.tensor([[1.0, 0.0]]), torch.tensor([90, 10]), tau=1.0).argmax()
    tensor(1)
    """
    return shift_logits(at_least_float32(logits), counts, -tau)


def shift_logits(logits: Tensor, counts: Tensor, tau: float) -> Tensor:
    """Logits + tau log prior; those of a class without training images are the lowest there are."""
    prior = counts.to(logits) / counts.sum()
    shifted = logits + tau * prior.clamp(min=torch.finfo(logits.dtype).tiny).log()
    return shifted.masked_fill(counts == 0, lowest(logits))


def ldam_margins(counts: Tensor, largest: float) -> Tensor:
    """Float[C], margins in proportion to n^(-1/4), the rarest class's is ``largest`` (eq. 13).

    >>> ldam_margins(torch.tensor([16, 1, 0]), 0.5)
    tensor([0.2500, 0.5000, 0.0000])
    """
    margins = counts.clamp(min=1).float() ** -0.25
    margins = margins.masked_fill(counts == 0, 0.0)
    return margins * (largest / margins.max())


@full_precision
def ldam_loss(
    logits: Tensor, targets: Tensor, margins: Tensor, *, scale: float, weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy of s (cos - margin of the image's own class).

    Args:
        logits: Float[N C], s times the cosines of features and class weights.
        targets: Int[N].
        margins: Float[C], in cosines.
        scale: s.
        weight: Float[C]; the mean is then weighted by the classes' weights.
    """
    own = F.one_hot(targets, logits.shape[1]).to(logits)
    return F.cross_entropy(logits - scale * margins.to(logits) * own, targets, weight)


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """Float[C], (1 - beta) / (1 - beta^n), with mean 1 over the classes that have images.

    At beta = 0 all are 1; towards 1 they go like 1 / n.

    >>> effective_weights(torch.tensor([100, 1]), 0.0)
    tensor([1., 1.])
    """
    counts = counts.double()
    weights = torch.where(counts > 0, (1 - beta) / (1 - beta**counts).clamp(min=1e-12), 0.0)
    return (weights / weights.sum() * (counts > 0).sum()).float()


@full_precision
def focal_cross_entropy(logits: Tensor, targets: Tensor, *, gamma: float) -> Tensor:
    """-(1 - p)^gamma log p of the image's own class, mean over the batch; at 0 cross-entropy.

    1 - p is the share of the other classes in log space, not a difference.

    Args:
        logits: Float[N C], C of 2 or more.
        targets: Int[N].
        gamma: >= 0.
    """
    own = F.one_hot(targets, logits.shape[1]).bool()
    log_p = F.log_softmax(logits, dim=1)
    terms = FocalTerms(log_p[own], masked_log_sum_exp(log_p, own), own.any(dim=1))
    return focal_loss(terms, focal_weight(terms, gamma))
