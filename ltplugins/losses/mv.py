# SPDX-License-Identifier: MIT
"""More views: which images of a pair of views pass MTTV's filter, and how the others stop pulling.

Paper: "Maximally Useful and Minimally Redundant: The Key to Self Supervised Learning for Imbalanced
Data", v1 2025 ("more than two views"), https://arxiv.org/abs/2509.08469
Official code: https://github.com/anonymouspersoncscv/MTTV at 247efd5

Our generalisation, in neither: the official filter acts on the similarity matrix of one contrastive
loss. A loss that is not ours to open has only the similarities of its positives in common with it.

Legend: N batch, D embedding dim, K prototypes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.precision import full_precision
from ltplugins.losses.mttv import in_band


@torch.no_grad()
@full_precision
def positive_in_band(z_1: Tensor, z_2: Tensor, *, lower: float, upper: float) -> Tensor:
    """Which images' two views satisfy lower <= |cosine| <= upper.

    Args:
        z_1, z_2: Float[N D], any scale; row i of both is image i.

    Returns:
        Bool[N].
    """
    return in_band(F.cosine_similarity(z_1, z_2, dim=1), lower, upper)


def detach_rows(value: Any, keep: Tensor) -> Any:
    """The same values, without gradient where ``keep`` is False.

    The images stay in the batch, so shapes, negatives and ranks' shares stay as they were; they
    only stop being moved.

    Args:
        value: Float[N ...] or Float[P N ...] (heads side by side), or a list of them; what has no
            axis of length N is returned as it is.
        keep: Bool[N].
    """
    if isinstance(value, list | tuple):
        return type(value)(detach_rows(v, keep) for v in value)
    if not isinstance(value, Tensor) or not value.requires_grad or value.ndim == 0:
        return value
    for axis in range(min(2, value.ndim)):
        if value.shape[axis] == len(keep):
            shape = [1] * value.ndim
            shape[axis] = len(keep)
            return torch.where(keep.view(shape), value, value.detach())
    return value
