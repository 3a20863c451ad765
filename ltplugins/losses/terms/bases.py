# SPDX-License-Identifier: MIT
"""The bases' losses as pure functions of tensors; gathering across ranks is the methods' part.

Legend: N local anchors, M candidates of all ranks, D dim, K queue, C classes. Every loss is worked
in float32 at least, under autocast too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.precision import full_precision
from ltplugins.losses.terms.nt_xent import nt_xent_of_units


@full_precision
def nt_xent(
    z: Tensor,
    ids: Tensor,
    temperature: float,
    *,
    all_z: Tensor | None = None,
    all_ids: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020, SimCLR, eq. 1).

    With labels as ids it is the supervised contrastive loss with the sum over positives *inside*
    the logarithm (Khosla et al. 2020, eq. 3, L_in), which is the form that solo-learn trains.
    Anchors without a positive count nothing; without any, the loss is 0.

    Args:
        z: (N, D) anchors, any norm.
        ids: (N,) rows with equal ids are positives of each other.
        all_z: (M, D) candidates of all ranks; default ``z``.
        all_ids: (M,) their ids.
        offset: row of ``all_z`` where the anchors begin.
    """
    if all_z is None or all_ids is None:
        all_z, all_ids = z, ids
    unit = F.normalize(z, dim=-1)
    # Gathered in a single process, the candidates are the anchors.
    all_units = None if all_z is z else F.normalize(all_z, dim=-1)
    total, has_positive = nt_xent_of_units(unit, all_units, ids, all_ids, temperature, offset)
    return total / has_positive.clamp(min=1)


@full_precision
def regression_loss(p: Tensor, z: Tensor) -> Tensor:
    """Squared distance of unit vectors, ``2 - 2 cos(p, z)`` (Grill et al. 2020, BYOL, eq. 2).

    Args:
        p: (N, D) predictions of the online network.
        z: (N, D) targets; no gradient flows into them.
    """
    return 2 - 2 * F.cosine_similarity(p, z.detach(), dim=-1).mean()


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """``-cos(p, stopgrad(z))`` (Chen and He 2021, SimSiam, eq. 1). p, z: (N, D)."""
    return -F.cosine_similarity(p, z.detach(), dim=-1).mean()


@full_precision
def queue_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE with one positive key and a queue of negatives (He et al. 2020, MoCo, eq. 1).

    Args:
        query: (N, D) unit norm.
        key: (N, D) unit norm, row i is the positive of query i.
        queue: (D, K) unit-norm columns.
    """
    positive = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, query @ queue], dim=1) / temperature  # (N, 1 + K)
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))


@full_precision
def barlow_twins(z_1: Tensor, z_2: Tensor, lamb: float, scale_loss: float) -> Tensor:
    """Cross-correlation driven to the identity (Zbontar et al. 2021, Barlow Twins, eq. 1 and 2).

    Args:
        z_1, z_2: (M, D) two views of the batch of all ranks.
        lamb: weight of the redundancy-reduction (off-diagonal) term.
        scale_loss: factor on the whole, as in the official code.
    """
    # Mean, biased variance and epsilon of a BatchNorm without affine parameters.
    unit_1, unit_2 = (
        (z - z.mean(dim=0)) * (z.var(dim=0, correction=0) + 1e-5).rsqrt() for z in (z_1, z_2)
    )
    correlation = unit_1.T @ unit_2 / len(z_1)  # (D, D)
    diagonal = correlation.diagonal()
    invariance = (diagonal - 1).square().sum()
    redundancy = correlation.square().sum() - diagonal.square().sum()
    return scale_loss * (invariance + lamb * redundancy)


@full_precision
def vicreg_invariance(z_1: Tensor, z_2: Tensor) -> Tensor:
    """Mean squared error of two views (Bardes et al. 2022, VICReg, eq. 5). z: (N, D)."""
    return F.mse_loss(z_1, z_2)


@full_precision
def vicreg_variance(z: Tensor) -> Tensor:
    """Hinge on each dimension's standard deviation (VICReg, eq. 1). z: (M, D)."""
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


@full_precision
def vicreg_covariance(z: Tensor) -> Tensor:
    """Squared off-diagonal covariances, summed, per dimension (VICReg, eq. 3 and 4). z: (M, D)."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


@full_precision
def class_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the labelled rows; 0, not NaN, for a batch without a label.

    Args:
        logits: (N, C).
        targets: (N,) -1 = unlabelled.
    """
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return total / (targets != -1).sum().clamp(min=1)


@torch.no_grad()
def accuracy(logits: Tensor, targets: Tensor, k: int) -> Tensor:
    """Top-k accuracy in percent over the labelled rows; 0 for a batch without a label."""
    guesses = logits.topk(min(k, logits.shape[1]), dim=1).indices
    hits = (guesses == targets[:, None]).any(dim=1).sum()
    return 100.0 * hits / (targets != -1).sum().clamp(min=1)
