# SPDX-License-Identifier: MIT
"""GML's queue: backbone features of recent images with their own labels and image indexes.

Paper and official code: see ``ltplugins/losses/gml.py``.

Each class owns a ring of slots, or all images share one (first in, first out). Features, labels and
indexes enter together in one call and are written to the same slots, so they cannot come apart.

Known differences from the official code:
- In its momentum mode the features that are stored stay shuffled against labels and indexes. Here
  nothing is shuffled.
- Slots start empty, with a flag, and are left out until they are filled. There they start as random
  unit vectors that pass for images of the slot's class (or of a random one).
- With one ring the image indexes are kept too, batches of any size fit, and every batch counts.

Legend: B batch of all ranks, K slots, D feature width, C classes, R rings (C, or 1).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ltplugins.losses.terms.class_rings import queue_capacities, ring_slots


class Stored(NamedTuple):
    """Float[S D] features, Int[S] labels and Int[S] image indexes of the slots that are filled."""

    feats: Tensor
    targets: Tensor
    indexes: Tensor


class ClassQueue(nn.Module):
    """K slots in rings. All state is in buffers, so that a checkpoint holds it.

    Every rank pushes the same gathered batch, so the buffers are the same on all of them, and DDP
    need not broadcast them (``Float[K D]`` a step).

    Args:
        size: K.
        dim: D.
        num_classes: C.
        base: slots that every class has at least; 0: one ring for all classes.
    """

    feats: Tensor
    targets: Tensor
    indexes: Tensor
    filled: Tensor
    heads: Tensor
    capacities: Tensor

    def __init__(self, size: int, dim: int, num_classes: int, base: int) -> None:
        super().__init__()
        self.size, self.base = size, base
        self.register_buffer("feats", torch.zeros(size, dim))
        self.register_buffer("targets", torch.full((size,), -1))
        self.register_buffer("indexes", torch.full((size,), -1))
        self.register_buffer("filled", torch.zeros(size, dtype=torch.bool))
        rings = num_classes if base else 1
        self.register_buffer("heads", torch.zeros(rings, dtype=torch.long))
        # Of the class counts, which a host may know only when training starts.
        capacities = torch.zeros(rings, dtype=torch.long) if base else torch.tensor([size])
        self.register_buffer("capacities", capacities)

    def allot(self, class_counts: Tensor) -> None:
        """Give each class its slots.

        Args:
            class_counts: Int[C], training images.

        Raises:
            UserError: the queue is too small for ``base`` slots a class.
        """
        if self.base:
            assert not self.filled.any(), "slots cannot change hands"
            self.capacities.copy_(queue_capacities(class_counts, self.size, self.base))

    @torch.no_grad()
    def push(self, feats: Tensor, targets: Tensor, indexes: Tensor) -> None:
        """Store a batch over the oldest entries of its rings; at most a ring's size of it.

        Args:
            feats: Float[B D], of the backbone; stored without their graph.
            targets: Int[B], -1 = unlabelled, not stored.
            indexes: Int[B], image indexes.
        """
        assert len(feats) == len(targets) == len(indexes)
        assert int(self.capacities.sum()) == self.size, "allot() comes first"
        rings = targets if self.base else torch.where(targets < 0, -1, 0)
        chosen, slots = ring_slots(rings, self.heads, self.capacities)
        self.feats[slots] = feats[chosen].to(self.feats.dtype)
        self.targets[slots] = targets[chosen]
        self.indexes[slots] = indexes[chosen]
        self.filled[slots] = True
        stored = rings[chosen].bincount(minlength=len(self.heads))
        self.heads.copy_((self.heads + stored) % self.capacities)

    def stored(self) -> Stored:
        """What the filled slots hold, as copies that later pushes do not change."""
        return Stored(self.feats[self.filled], self.targets[self.filled], self.indexes[self.filled])
