# SPDX-License-Identifier: MIT
"""GML's queue: features, labels and indexes stay together, rings wrap, all is in checkpoints."""

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.methods.parts.class_queue import ClassQueue

COUNTS = torch.tensor([60, 30, 10])


def marked(targets, start):
    """A batch whose features say the label and the image index that they belong to."""
    indexes = torch.arange(start, start + len(targets))
    feats = torch.stack([targets.float(), indexes.float()], dim=1)
    return feats, targets, indexes


def queue(base=2, size=20):
    made = ClassQueue(size, 2, 3, base)
    made.allot(COUNTS)
    return made


def oracle(batches, capacities):
    """Rings as Python lists: {slot: (label, index)} after all batches."""
    starts = [sum(capacities[:c]) for c in range(len(capacities))]
    heads, slots = [0] * len(capacities), {}
    for _, targets, indexes in batches:
        seen = [0] * len(capacities)
        for label, index in zip(targets.tolist(), indexes.tolist(), strict=True):
            ring = label if len(capacities) > 1 else 0
            if seen[ring] < capacities[ring]:
                place = (heads[ring] + seen[ring]) % capacities[ring]
                slots[starts[ring] + place] = (label, index)
                seen[ring] += 1
        heads = [(h + s) % k for h, s, k in zip(heads, seen, capacities, strict=True)]
    return slots


@pytest.mark.parametrize(("base", "capacities"), [(2, [11, 6, 3]), (0, [20])])
def test_features_keep_their_labels_and_indexes(base, capacities):
    """The official momentum mode stores features that were shuffled against both."""
    g = torch.Generator().manual_seed(3)
    made, batches = queue(base), []
    for step in range(7):
        batches.append(marked(torch.randint(0, 3, (9,), generator=g), 100 * step))
        made.push(*batches[-1])
        stored = made.stored()
        assert torch.equal(stored.feats[:, 0].long(), stored.targets)
        assert torch.equal(stored.feats[:, 1].long(), stored.indexes)
        expected = oracle(batches, capacities)
        assert made.filled.nonzero()[:, 0].tolist() == sorted(expected)
        found = zip(stored.targets.tolist(), stored.indexes.tolist(), strict=True)
        assert list(found) == [expected[slot] for slot in sorted(expected)]
    assert made.filled.all()


def test_contents_of_the_official_queue():
    """``_dequeue_and_enqueue_w_base`` at 1ff816c on the same batches: image indexes by slot."""
    g = torch.Generator().manual_seed(3)
    made = queue()
    for step in range(4):
        made.push(*marked(torch.randint(0, 3, (8,), generator=g), 100 * step))
    official = [306, 5, 6, 103, 106, 200, 201, 204, 206, 300, 303]
    official += [107, 207, 304, 307, 101, 102, 305, 301, 302]
    assert made.indexes.tolist() == official
    assert made.heads.tolist() == [1, 4, 1]


def test_a_class_takes_no_more_than_its_slots_of_one_batch():
    made = queue()
    made.push(*marked(torch.tensor([2, 2, 2, 2, 2, 0]), 0))
    assert made.stored().indexes.tolist() == [5, 0, 1, 2]
    made.push(*marked(torch.tensor([2]), 50))
    assert made.stored().indexes.tolist() == [5, 50, 1, 2]


def test_empty_slots_are_left_out_and_unlabelled_images_not_stored():
    made = queue()
    assert [len(x) for x in made.stored()[:3]] == [0, 0, 0]
    made.push(*marked(torch.tensor([1, -1, 0]), 7))
    assert made.stored().targets.tolist() == [0, 1]
    fifo = queue(base=0)
    fifo.push(*marked(torch.tensor([1, -1, 0]), 7))
    assert fifo.stored().indexes.tolist() == [7, 9]


def test_what_was_read_does_not_change_and_has_no_graph():
    made = queue()
    feats, targets, indexes = marked(torch.tensor([0, 1]), 0)
    made.push((2 * feats.requires_grad_()), targets, indexes)
    stored = made.stored()
    assert not stored.feats.requires_grad
    before = stored.feats.clone()
    for step in range(3):
        made.push(*marked(torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]), 10 * step))
    assert torch.equal(stored.feats, before)


def test_all_state_is_in_the_checkpoint():
    made = queue()
    for step in range(3):
        made.push(*marked(torch.tensor([0, 1, 2, 2]), 10 * step))
    again = ClassQueue(20, 2, 3, 2)
    again.load_state_dict(made.state_dict())
    for one in (made, again):
        one.push(*marked(torch.tensor([2, 1, 0]), 70))
    for a, b in zip(made.stored()[:3], again.stored()[:3], strict=True):
        assert torch.equal(a, b)


def test_a_batch_without_a_label_changes_nothing():
    made = queue()
    made.push(*marked(torch.tensor([0, 1, 2]), 10))
    before = {key: value.clone() for key, value in made.state_dict().items()}
    made.push(*marked(torch.tensor([-1, -1]), 20))
    made.push(*marked(torch.tensor([], dtype=torch.long), 30))
    for key, value in made.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_gpu_hands_out_all_slots_with_a_mask(monkeypatch):
    made = queue()
    made.push(*marked(torch.tensor([2, 0, -1, 0]), 10))
    of_cpu = made.stored()
    monkeypatch.setattr("ltplugins.methods.parts.class_queue.runs_behind", lambda values: True)
    held = made.stored()
    assert of_cpu.filled is None
    assert [len(x) for x in held] == [20] * 4
    for a, b in zip(of_cpu[:3], held[:3], strict=True):
        assert torch.equal(a, b[held.filled])


def test_a_queue_too_small_for_its_classes():
    with pytest.raises(UserError, match="a queue of 5 slots cannot give each of 3 classes"):
        queue(size=5)
