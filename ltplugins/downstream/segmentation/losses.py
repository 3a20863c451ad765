# SPDX-License-Identifier: MIT
"""Losses of a segmentation: sums of cross-entropy, plain or adjusted, Dice and Lovász.

``adjusted`` is cross-entropy on logits to which the log prior of the pixels is added in training
(Menon et al. 2021, "Long-tail learning via logit adjustment", https://arxiv.org/abs/2007.07314);
with the prior estimated from counts it maximises the mutual information of GML (Suh and Seo 2023,
https://arxiv.org/abs/2305.01160) carried to pixels. That paper reports segmentation, too; its own
setting for it could not be read anywhere, so that this is our form: prior of the training pixels,
one for all places, no queue. Dice and Lovász are segmentation_models_pytorch's.

Legend: B batch, C classes, H, W of an image.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.precision import full_precision
from ltplugins.downstream.segmentation.decoders import import_smp
from ltplugins.downstream.segmentation.options import IGNORE, LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]


@full_precision
def pixel_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean over the pixels that have a class; 0 where none has one.

    Args:
        logits: Float[B C H W].
        masks: Int[B H W], IGNORE = no class.
    """
    total = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="sum")
    return total / (masks != IGNORE).sum().clamp(min=1)


@full_precision
def adjusted_cross_entropy(
    logits: Tensor, masks: Tensor, pixel_counts: Tensor, *, tau: float = 1.0
) -> Tensor:
    """Cross-entropy of logits + tau log prior; a class without training pixels counts as one pixel.

    Without that pixel its logit would be minus infinity here and unlearned at test time.

    Args:
        logits, masks: see :func:`pixel_cross_entropy`.
        pixel_counts: Int[C], of the training masks.
        tau: 1 = the prior itself, 0 = plain cross-entropy.
    """
    counts = pixel_counts.to(logits).clamp(min=1)
    log_prior = (counts / counts.sum()).log()
    return pixel_cross_entropy(logits + tau * log_prior[:, None, None], masks)


def build_loss(
    cfg: LossConfig, pixel_counts: Tensor
) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """The terms that a config weighs, each with its weight: logits and masks to terms by name.

    Args:
        cfg: weights and tau.
        pixel_counts: Int[C].
    """
    terms = {name: _term(name, cfg, pixel_counts) for name in cfg.weights}

    def loss(logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        return {name: cfg.weights[name] * term(logits, masks) for name, term in terms.items()}

    return loss


def _term(name: str, cfg: LossConfig, pixel_counts: Tensor) -> Loss:
    if name == "ce":
        return pixel_cross_entropy
    if name == "adjusted":
        return lambda logits, masks: adjusted_cross_entropy(
            logits, masks, pixel_counts.to(logits.device), tau=cfg.tau
        )
    losses: Any = import_smp().losses
    factory = losses.DiceLoss if name == "dice" else losses.LovaszLoss
    found = factory("multiclass", ignore_index=IGNORE)

    def term(logits: Tensor, masks: Tensor) -> Tensor:
        value = full_precision(found)(logits, masks)
        return value if value.ndim == 0 else value.sum()  # Lovász of a batch without a class

    return term


def total(terms: dict[str, Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(list(terms.values())).sum()
