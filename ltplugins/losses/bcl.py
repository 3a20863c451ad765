# SPDX-License-Identifier: MIT
"""BCL, Boosted Contrastive Learning: what a contrastive loss per image says about its augmentation.

Paper: Zhou et al., "Contrastive Learning with Boosted Memorization", ICML 2022,
https://arxiv.org/abs/2205.12693
Official code: https://github.com/MediaBrain-SJTU/BCL at a2342f8

An image that is still poorly learnt late (high momentum loss M_i) is taken for one of the tail and
augmented more strongly.

Known differences from the official code:
- The moving average is ``terms/memory.py``'s: the same rule, without a loop over the batch.
- Officially an image that an epoch left out has M_i = 0 in that epoch; its loader leaves none out.
  Here M_i stays, and an image that was never seen has h_i = 0 and counts in no mean.
- Equal losses give h_i = 1/2; officially 0 / 0.
- Rows of one image (a sampler with replacement) are no negatives of each other, as in the hosts'
  SimCLR; officially every row is an image of its own.

Legend: B images, D dim, N training images.
"""

import torch
import torch.nn.functional as F
from einops import reduce, repeat
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.precision import full_precision
from ltplugins.losses.terms.masked import masked_log_sum_exp, own_columns


@torch.no_grad()
@full_precision
def image_losses(z_1: Tensor, z_2: Tensor, indexes: Tensor, *, temperature: float) -> Tensor:
    """NT-Xent of each image, the mean over its two views as anchors.

    L_i = 1/2 sum_{v = 1, 2} -log [exp(z_i1.z_i2 / tau) / sum_{a != (i, v)} exp(z_iv.z_a / tau)]

    Their mean over a batch of different images is SimCLR's loss.

    Args:
        z_1, z_2: Float[B D], the two views of the global batch, any norm.
        indexes: Int[B]; rows of one image are positives of each other, inside the logarithm.
        temperature: tau.

    Returns:
        L: Float[B] >= 0, at least float32, without gradient; 0 for a batch of one.

    Raises:
        UserError: shapes that do not fit.
    """
    if z_1.shape != z_2.shape or indexes.shape != z_1.shape[:1]:
        raise UserError(
            f"image_losses: expected two views of one shape and an index per row, got "
            f"{tuple(z_1.shape)}, {tuple(z_2.shape)} and {tuple(indexes.shape)}."
        )
    z = F.normalize(torch.cat([z_1, z_2]), dim=1)
    logits = z @ z.T / temperature  # (2B, 2B)
    itself = own_columns(logits)
    ids = repeat(indexes, "image -> (view image)", view=2)
    other_image = ids[:, None] != ids[None, :]
    of_positives = masked_log_sum_exp(logits, itself | other_image)
    losses = masked_log_sum_exp(logits, itself) - of_positives
    return reduce(losses, "(view image) -> image", "mean", view=2)


@torch.no_grad()
def boost_strengths(memory: Tensor, filled: Tensor) -> Tensor:
    """Strength of every image's augmentation from its momentum loss.

    h_i = 1/2 (s_i / max_j |s_j| + 1), s = zscore(M). The standard deviation cancels: only the
    distances from the mean count, and the image farthest from it gets 0 or 1.

    Args:
        memory: Float[N], M.
        filled: Bool[N], which rows hold an observation.

    Returns:
        h: Float[N] in [0, 1], at least float32; 0 where nothing was observed.
    """
    known = memory.double()
    count = filled.sum().clamp(min=1)
    mean = torch.where(filled, known, 0.0).sum() / count
    distance = torch.where(filled, known - mean, 0.0)
    farthest = distance.abs().amax() if len(memory) else distance.sum()
    # What equal losses differ by in float32's last bits is no order.
    flat = farthest <= 1e-6 * mean.abs()
    share = torch.where(flat, 0.0, distance / torch.where(flat, 1.0, farthest))
    return torch.where(filled, (share + 1.0) / 2.0, 0.0).clamp(0.0, 1.0).float()
