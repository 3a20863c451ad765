# SPDX-License-Identifier: MIT
"""GML's class-wise queue in numbers: how many slots a class has, and into which a batch goes.

Paper and official code: see ``gml.py``.

Known difference from the official code: class boundaries are computed in whole numbers. There,
float32 sums are rounded up, and a share of 1.0000001 makes one slot more than the queue has.

Legend: B batch of all ranks, C classes, R rings, K slots of the queue.
"""

from itertools import accumulate

import torch
from torch import Tensor

from ltplugins.core.errors import UserError


def queue_capacities(class_counts: Tensor, size: int, base: int) -> Tensor:
    """Slots of each class in a queue of ``size``: about base + (size - C base) x its frequency.

    Class c ends at ceil(base (c + 1) + (size - C base) x the share of classes 0..c).

    Args:
        class_counts: Int[C], training images.
        size: K.
        base: slots that every class has whatever its size, >= 1.

    Returns:
        Int[C], sum K.

    Raises:
        UserError: no training images, or fewer slots than C x base.
    """
    counts = class_counts.tolist()
    num_classes, total = len(counts), sum(counts)
    spare = size - base * num_classes
    if total < 1 or min(counts) < 0 or base < 1 or spare < 0:
        raise UserError(
            f"a queue of {size} slots cannot give each of {num_classes} classes ({total} training "
            f"images in all) at least {base}. Set queue_size to {base * num_classes} or more, or "
            f"a lower base_k."
        )
    ends = [0]
    for label, images in enumerate(accumulate(counts), start=1):
        ends.append(base * label - (-spare * images // total))  # the share, rounded up
    return torch.tensor(ends, device=class_counts.device).diff()


def ring_slots(rings: Tensor, heads: Tensor, capacities: Tensor) -> tuple[Tensor, Tensor]:
    """Where a batch goes in a queue of rings laid end to end.

    Args:
        rings: Int[B], the ring of each entry; a negative one is not stored.
        heads: Int[R], the place within each ring where it is written next.
        capacities: Int[R], slots of each ring.

    Returns:
        Bool[B], which entries are stored: of each ring the first, at most its capacity; and Int[B],
        their slots, all different. The slots of the others mean nothing.
    """
    same = rings[:, None] == rings[None, :]
    turn = same.tril(-1).sum(dim=1)  # (B,) entries of the same ring before this one
    own = rings.clamp(min=0)
    starts = capacities.cumsum(0) - capacities
    slots = starts[own] + (heads[own] + turn) % capacities[own]
    return (rings >= 0) & (turn < capacities[own]), slots
