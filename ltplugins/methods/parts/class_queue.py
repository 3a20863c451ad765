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

from ltplugins.core.transfer import runs_behind
from ltplugins.losses.terms.class_rings import queue_capacities, ring_slots


class Stored(NamedTuple):
    """What the queue holds: of the S slots that are filled, or of all with a mask of these.

    Attributes:
        feats: Float[S D].
        targets: Int[S], labels.
        indexes: Int[S], of the images.
        filled: Bool[S], False where the other three mean nothing; None where there is no such slot.
    """

    feats: Tensor
    targets: Tensor
    indexes: Tensor
    filled: Tensor | None


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
        allotted = self.capacities.sum() == self.size
        assert runs_behind(allotted) or bool(allotted), "allot() comes first"
        if not len(targets):
            return
        rings = targets if self.base else torch.where(targets < 0, -1, 0)
        stored, slots = ring_slots(rings, self.heads, self.capacities)
        # What is not stored writes what the first entry that is does: leaving it out would need
        # the number of the others, and that is known only to the device.
        first = stored.int().argmax(dim=0, keepdim=True)
        source = torch.where(stored, torch.arange(len(stored), device=stored.device), first)
        slots, any_stored = slots[source], stored.any()
        for kept, new in ((self.feats, feats), (self.targets, targets), (self.indexes, indexes)):
            rows = torch.where(any_stored, new[source].to(kept.dtype), kept[slots])
            kept.index_copy_(0, slots, rows)
        self.filled.index_copy_(0, slots, self.filled[slots] | any_stored)
        counts = torch.zeros_like(self.heads).index_add_(0, rings.clamp(min=0), stored.long())
        self.heads.copy_((self.heads + counts) % self.capacities)

    def stored(self) -> Stored:
        """What the slots hold, as copies that later pushes do not change.

        On a CPU of the filled ones; on a GPU of all, as the number of these would be waited for.
        """
        feats, targets, indexes, filled = self.feats, self.targets, self.indexes, self.filled
        if runs_behind(filled):
            return Stored(feats.clone(), targets.clone(), indexes.clone(), filled.clone())
        return Stored(feats[filled], targets[filled], indexes[filled], None)
