# SPDX-License-Identifier: MIT
"""How GML's queue is shared out among classes, and where a batch goes in it."""

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.losses.terms.class_rings import queue_capacities, ring_slots


def cifar100_lt(factor=100):
    return torch.tensor([int(500 * (1 / factor) ** (c / 99)) for c in range(100)])


def test_worked_capacities():
    """The spec's property 7."""
    assert queue_capacities(torch.tensor([60, 30, 10]), 20, 2).tolist() == [11, 6, 3]
    counts = cifar100_lt()
    assert counts.sum() == 10847
    slots = queue_capacities(counts, 4096, 2)
    assert slots[:3].tolist() == [182, 173, 166]
    assert (slots.min(), slots.sum()) == (3, 4096)


@pytest.mark.parametrize("size", [100, 101, 256, 4096])
@pytest.mark.parametrize("base", [1, 3])
def test_every_class_has_its_base_and_no_slot_is_lost(size, base):
    for counts in (torch.ones(33, dtype=torch.long), cifar100_lt()[:33], torch.tensor([7, 0, 1])):
        slots = queue_capacities(counts, size, base)
        assert slots.sum() == size
        assert slots.min() >= base
        share = base + (size - base * len(counts)) * counts / counts.sum()
        assert (slots - share).abs().max() < 1


@pytest.mark.parametrize(
    ("counts", "size", "base"), [([1, 1, 1], 8, 3), ([0, 0], 9, 1), ([1, 1], 9, 0)]
)
def test_a_queue_that_cannot_be_shared_out(counts, size, base):
    with pytest.raises(UserError, match=f"a queue of {size} slots .* at least {base}"):
        queue_capacities(torch.tensor(counts), size, base)


def test_slots_of_a_batch():
    """Rings of 3, 2 and 1 slots; the first starts at its place 2 and wraps around."""
    rings = torch.tensor([0, 1, 0, -1, 0, 0, 2, 2])
    stored, slots = ring_slots(rings, torch.tensor([2, 0, 0]), torch.tensor([3, 2, 1]))
    # At most a ring's size, the first ones.
    assert stored.nonzero()[:, 0].tolist() == [0, 1, 2, 4, 6]
    assert slots[stored].tolist() == [2, 3, 0, 1, 5]
    assert [len(x) for x in ring_slots(rings[:0], torch.zeros(1), torch.ones(1))] == [0, 0]
