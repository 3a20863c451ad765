# SPDX-License-Identifier: MIT
"""A moving average per training image: the state that BCL, COLT and GH keep between batches.

Legend: B global batch, N training images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def update_memory(
    memory: Tensor, filled: Tensor, indexes: Tensor, values: Tensor, momentum: float
) -> None:
    """Moving average of each image's values, in place, without a loop or a wait for the device.

    A row's first observation becomes its value. An image that occurs several times in the batch
    (a class-aware sampler draws with replacement) counts once, with the mean of its values, so the
    result depends neither on their order nor on the device. Rows with an index of N or more are
    images of a second, out-of-distribution set: they are no training images and change nothing.

    Args:
        memory: Float[N ...], changed in place.
        filled: Bool[N], changed in place; which rows hold an observation.
        indexes: Int[B], rows of the batch's images.
        values: Float[B ...].
        momentum: the share of the old value that is kept.
    """
    if not len(memory):
        return
    is_id = indexes < len(memory)
    # Rows that must not count are pointed at a row that does and write what that one writes:
    # leaving them out would need their number, and that is known only to the device.
    first_id = indexes[is_id.int().argmax(dim=0, keepdim=True)].clamp(max=len(memory) - 1)
    rows, order = torch.where(is_id, indexes, first_id).sort(stable=True)
    counted = is_id[order].to(values.dtype)
    flat = values.reshape(len(values), -1)[order].mul_(counted[:, None])
    # One image's values are neighbours now: they share a number below B, and a sum.
    image = F.pad((rows[1:] != rows[:-1]).long(), (1, 0)).cumsum(dim=0)
    total = torch.zeros_like(flat).index_add_(0, image, flat)
    number = torch.zeros_like(counted).index_add_(0, image, counted)
    mean = total.div_(number.clamp_(min=1)[:, None])[image].view_as(values)
    old, known = memory[rows].to(values.dtype), filled[rows]
    # Without one training image in the batch, the one row keeps what it holds.
    any_id = is_id.any()
    kept = torch.where(any_id, momentum, 1.0).to(values.dtype)
    has_old = (known | ~any_id).view(-1, *[1] * (values.ndim - 1))
    new = torch.where(has_old, torch.lerp(mean, old, kept), mean)
    memory.index_copy_(0, rows, new.to(memory.dtype))
    filled.index_copy_(0, rows, known | any_id)
