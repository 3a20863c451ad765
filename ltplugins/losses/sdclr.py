# SPDX-License-Identifier: MIT
"""SDCLR's magnitude mask: which of a network's weights its pruned self-competitor keeps.

Paper: Jiang et al., "Self-Damaging Contrastive Learning", ICML 2021,
https://arxiv.org/abs/2106.02990
Official code: https://github.com/VITA-Group/SDCLR at f1490fc

The loss itself is the base's, of the full network's view and the pruned one's. The code takes it
twice, each time with the other branch detached, because DDP did not allow two forwards of one
module before a backward. A sum of the two partial gradients is the whole one, so once is enough.

Known difference from the official code: pruning a share at random (``random_prune_percent``, 0 by
default in its scripts) is left out.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def magnitude_masks(weights: Sequence[Tensor], ratio: float) -> list[Tensor]:
    """Keep the weights of largest magnitude over all tensors together.

    The ceil(ratio * total) smallest go; a weight as large as the smallest that is kept stays too,
    so that ties are never broken by position. At least one weight is kept.

    Args:
        weights: of any shapes, one network's.
        ratio: share to prune, 0 to 1.

    Returns:
        Bool masks of the weights' shapes, True = kept.
    """
    sizes = torch.cat([weight.detach().flatten().float().abs() for weight in weights])
    pruned = min(math.ceil(ratio * len(sizes)), len(sizes) - 1)
    # Not kthvalue: on a GPU it is refused where deterministic algorithms are asked for.
    threshold = sizes.sort().values[pruned]
    return [weight.detach().float().abs() >= threshold for weight in weights]


def sparsity(masks: Sequence[Tensor]) -> float:
    """Share of the weights that the masks prune."""
    kept = sum(int(mask.sum()) for mask in masks)
    return 1 - kept / sum(mask.numel() for mask in masks)
