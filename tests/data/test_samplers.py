# SPDX-License-Identifier: MIT
"""Which positions are drawn, and how ranks share them."""

from typing import get_args

import numpy as np
import pytest

from ltplugins.core.errors import UserError
from ltplugins.core.seeding import mix_seed
from ltplugins.data.samplers.class_aware import ClassAwareSampler
from ltplugins.data.samplers.pairs import PairedSampler, TwoBranchSampler
from ltplugins.data.samplers.shuffle import ShuffleSampler
from ltplugins.data.schema import Sampler
from tests.kit.data import sampler_of

TARGETS = np.repeat([0, 1, 2], [100, 10, 1])


def test_shuffle_is_a_permutation_of_seed_and_epoch():
    sampler = ShuffleSampler(50, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(50))
    assert list(sampler) == first
    assert list(ShuffleSampler(50, seed=3)) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(ShuffleSampler(50, seed=4)) != first


@pytest.mark.parametrize("name", ["shuffle", "class_aware"])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("size", [30, 31, 32])
def test_ranks_share_one_global_order(name, world_size, size):
    targets = np.arange(size) % 3
    whole = sampler_of(name, targets, seed=1).positions()
    ranks = [
        sampler_of(name, targets, seed=1, rank=r, world_size=world_size) for r in range(world_size)
    ]
    joined = np.empty(size, dtype=np.int64)
    for r, sampler in enumerate(ranks):
        assert len(sampler) == len(sampler.positions())
        joined[r::world_size] = sampler.positions()
    # Nothing twice, nothing dropped: the parts are the whole order, put together again.
    assert joined.tolist() == whole.tolist()
    if name == "shuffle":
        assert sorted(joined.tolist()) == list(range(size))
    # Batch 1 of all ranks together is batch 1 of one process with the joined batch.
    batch = np.sort(np.concatenate([s.positions()[2:4] for s in ranks]))
    assert batch.tolist() == np.sort(whole[2 * world_size : 4 * world_size]).tolist()


@pytest.mark.parametrize("name", get_args(Sampler))
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("size", [30, 31, 32])
def test_no_sampler_gives_a_place_twice_or_to_nobody(name, world_size, size):
    """Whatever the sampler: the ranks' parts are one process's epoch, each place once."""

    def build(rank, world):
        sampler = sampler_of(name, np.arange(size) % 3, seed=1, rank=rank, world_size=world)
        if name == "id_plus_ood":
            sampler.set_ood(np.array([2, 7, 5]))
        sampler.set_epoch(3)
        return sampler

    whole = build(0, 1)
    order = whole.positions()
    joined = np.full(len(order), -1)
    for sampler in (build(rank, world_size) for rank in range(world_size)):
        places = sampler.numbers()
        assert len(sampler) == len(places)
        assert (joined[places] == -1).all()
        joined[places] = sampler.positions()
    assert joined.tolist() == order.tolist()
    assert len(order) == whole.total


def test_pairs_hold_every_image_once_and_a_uniform_partner():
    sampler = sampler_of("paired", np.arange(20) % 3, seed=1)
    assert isinstance(sampler, PairedSampler)
    partners = []
    for epoch in range(300):
        sampler.set_epoch(epoch)
        pairs = sampler.positions().reshape(-1, 2)
        assert len(sampler) == sampler.total == 40
        assert sorted(pairs[:, 0]) == list(range(20))
        partners.append(pairs[np.argsort(pairs[:, 0]), 1])
    # Uniform over all images for every image; three standard deviations of 6000 draws are 0.0085.
    share = np.bincount(np.concatenate(partners), minlength=20) / 6000
    assert share == pytest.approx(np.full(20, 0.05), abs=0.0085)
    assert not np.array_equal(partners[0], partners[1])
    assert any((row == np.arange(20)).any() for row in partners)  # itself is allowed
    sampler.set_epoch(0)
    assert np.array_equal(sampler.positions(), PairedSampler(20, seed=1).positions())


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("size", [11, 12, 13])
def test_ranks_share_whole_pairs(size, world_size):
    whole = PairedSampler(size, seed=1)
    pairs = whole.positions().reshape(-1, 2)
    assert whole.numbers().tolist() == list(range(2 * size))
    for r in range(world_size):
        sampler = PairedSampler(size, seed=1, rank=r, world_size=world_size)
        own = sampler.positions()
        assert len(sampler) == len(own) == len(sampler.numbers())
        assert np.array_equal(own.reshape(-1, 2), pairs[r::world_size])
        assert np.array_equal(whole.positions()[sampler.numbers()], own)
    # The ranks' batches of two pairs together are one process's batch of 2 W pairs.
    first = [
        PairedSampler(size, seed=1, rank=r, world_size=world_size).positions()[:4].reshape(2, 2)
        for r in range(world_size)
    ]
    joined = np.stack(first, axis=1).reshape(-1, 2)
    assert np.array_equal(joined, pairs[: 2 * world_size])


@pytest.mark.parametrize(
    ("gamma", "probs"),
    [
        (0.0, [1 / 3, 1 / 3, 1 / 3]),
        (0.5, [0.070610, 0.223289, 0.706101]),
        (1.0, [0.009009, 0.090090, 0.900901]),
    ],
)
def test_class_aware_probabilities(gamma, probs):
    sampler = ClassAwareSampler(TARGETS, gamma)
    assert sampler.class_probs == pytest.approx(probs, abs=1e-6)
    drawn = []
    for epoch in range(300):
        sampler.set_epoch(epoch)
        drawn.append(TARGETS[sampler.positions()])
    share = np.bincount(np.concatenate(drawn)) / (300 * len(TARGETS))
    assert share == pytest.approx(probs, abs=0.01)  # three standard deviations are 0.008


def test_class_aware_draws_uniformly_inside_a_class():
    order = np.random.RandomState(0).permutation(12)
    targets = np.array([0] * 8 + [1] * 3 + [-1])[order]
    sampler = ClassAwareSampler(targets)
    drawn = []
    for epoch in range(600):
        sampler.set_epoch(epoch)
        drawn.append(sampler.positions())
    counts = np.bincount(np.concatenate(drawn), minlength=12)
    assert counts[targets == -1].tolist() == [0]
    assert counts[targets == 0] / counts.sum() == pytest.approx(np.full(8, 1 / 16), abs=0.012)
    assert counts[targets == 1] / counts.sum() == pytest.approx(np.full(3, 1 / 6), abs=0.015)


# Mean label mass of the mixed images with lambda uniform: half agnostic, half class-aware.
@pytest.mark.parametrize(
    ("gamma", "mass"),
    [(0.0, [0.617117, 0.211712, 0.171171]), (1.0, [0.454955, 0.090090, 0.454955])],
)
def test_two_branches_hold_every_image_once_and_class_aware_draws(gamma, mass):
    sampler = sampler_of({"name": "two_branch", "gamma": gamma}, TARGETS, seed=1)
    assert isinstance(sampler, TwoBranchSampler)
    assert sampler.aware.class_probs == pytest.approx(ClassAwareSampler(TARGETS, gamma).class_probs)
    prior = np.array([100, 10, 1]) / 111
    assert (prior + sampler.aware.class_probs) / 2 == pytest.approx(mass, abs=1e-6)
    drawn = []
    for epoch in range(300):
        sampler.set_epoch(epoch)
        agnostic, aware = sampler.positions().reshape(-1, 2).T
        assert len(sampler) == sampler.total == 222
        assert sorted(agnostic) == list(range(111))
        drawn.append(np.concatenate([TARGETS[agnostic], TARGETS[aware]]))
    share = np.bincount(np.concatenate(drawn)) / (300 * 222)
    assert share == pytest.approx(mass, abs=0.005)  # three standard deviations are 0.004
    again = TwoBranchSampler(TARGETS, gamma, seed=1)
    again.set_epoch(299)
    assert np.array_equal(sampler.positions(), again.positions())
    again.set_epoch(298)
    assert not np.array_equal(sampler.positions(), again.positions())


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("size", [11, 12, 13])
def test_ranks_share_whole_pairs_of_both_branches(size, world_size):
    targets = np.arange(size) % 3
    pairs = TwoBranchSampler(targets, seed=1).positions().reshape(-1, 2)
    parts = []
    for r in range(world_size):
        sampler = TwoBranchSampler(targets, seed=1, rank=r, world_size=world_size)
        own = sampler.positions()
        assert len(sampler) == len(own) == len(sampler.numbers())
        assert np.array_equal(own.reshape(-1, 2), pairs[r::world_size])
        parts.append(own[0::2])
    # The class-agnostic halves of all ranks: every image, none twice.
    assert sorted(np.concatenate(parts)) == list(range(size))


def test_a_batch_has_its_class_agnostic_half_first():
    sampler = TwoBranchSampler(np.arange(12) % 3, seed=1)
    assert sampler.arrange(6).tolist() == [0, 2, 4, 1, 3, 5]
    assert ShuffleSampler(12).arrange(4).tolist() == [0, 1, 2, 3]


def test_sampler_errors():
    with pytest.raises(UserError, match=r"sampler.name: .*got 'shuffl'. Did you mean 'shuffle'"):
        sampler_of("shuffl", TARGETS)
    with pytest.raises(UserError, match=r"unknown key 'data.sampler.gama'. Did you mean 'gamma'"):
        sampler_of({"name": "class_aware", "gama": 1}, TARGETS)
    with pytest.raises(UserError, match=r"'class_aware' needs labels, and the data has none"):
        sampler_of("class_aware", np.full(4, -1))
    with pytest.raises(UserError, match=r"gamma: expected a number of 0 or more, got -1"):
        sampler_of({"name": "class_aware", "gamma": -1}, TARGETS)
    with pytest.raises(UserError, match=r"a label for every image; 1 of 4 have none"):
        sampler_of("two_branch", np.array([0, 1, -1, 1]))
    with pytest.raises(ValueError, match=r"rank 2 is outside 0..1"):
        ShuffleSampler(4, rank=2, world_size=2)


def test_sampler_block():
    sampler = sampler_of({"name": "class_aware", "gamma": 1.0}, TARGETS)
    assert sampler.class_probs[2] == pytest.approx(0.900901, abs=1e-6)


def test_mixed_seeds_differ_by_place_and_value():
    seeds = {mix_seed(a, b, c) for a in range(12) for b in range(12) for c in range(12)}
    assert len(seeds) == 12**3
    assert all(0 <= s < 2**63 for s in seeds)
    assert mix_seed(1, 2) != mix_seed(2, 1)
    assert mix_seed(0) != mix_seed(0, 0)
