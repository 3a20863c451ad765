# SPDX-License-Identifier: MIT
"""What is held out to choose by: shares of classes, and whole places where images have them."""

import numpy as np
import pytest

from ltplugins.data.holdout import hold_out
from ltplugins.data.sources.land.blocks import TRAIN
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.data.sources.land.source import tile_source
from ltplugins.data.sources.land.tiles import land_tiles


def test_a_share_of_each_class() -> None:
    labels = np.array([0] * 50 + [1] * 10 + [2] * 2 + [3])
    fit, val = hold_out(labels, 0.2, np.random.default_rng(0))
    assert np.bincount(labels[val], minlength=4).tolist() == [10, 2, 1, 0]
    assert sorted([*fit, *val]) == list(range(63))


def test_images_of_one_place_stay_together() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(600) % 3)
    places = rng.integers(0, 40, 600)[:, None]
    kept, held = hold_out(labels, 0.1, np.random.default_rng(1), places)
    assert not set(places[kept].ravel()) & set(places[held].ravel())
    assert sorted([*kept, *held]) == list(range(600))
    assert all(0.05 <= share <= 0.2 for share in np.bincount(labels[held]) / 200)
    other = hold_out(labels, 0.1, np.random.default_rng(2), places)[1]
    assert set(places[held].ravel()) != set(places[other].ravel())  # the seed chooses


def test_a_class_of_one_place_is_kept_and_what_lies_across_is_in_none() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    places = np.array([[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [3, 3], [3, 3], [3, 3], [3, 3]])
    kept, held = hold_out(labels, 0.2, np.random.default_rng(0), places)
    assert not (labels[held] == 1).any() and len(held) == 1
    across = set(range(9)) - set(kept) - set(held)
    assert across and all(places[i, 0] != places[i, 1] for i in across)


@pytest.mark.parametrize("tile", [32, 64])
def test_no_pixel_of_a_held_out_tile_is_trained_on(tile) -> None:
    cfg = LandConfig(tile=tile)
    source = tile_source(cfg, "train")
    tiles = land_tiles(cfg)
    corners = tiles.corners[tiles.of(TRAIN)]
    kept, held = hold_out(source.targets, 0.1, np.random.default_rng(0), source.places)
    far = np.abs(corners[kept][:, None] - corners[held][None]).max(-1)
    assert far.min() >= tile  # and not one image beside another would give less than half a tile
    totals, found = (np.bincount(t, minlength=source.num_classes)
                     for t in (source.targets, source.targets[held]))  # fmt: skip
    assert (found > 0).all() and (found <= totals / 2).all()
    assert 0.05 < len(held) / len(source) < 0.25
    part = source.subset(held[:3])
    assert np.array_equal(part.places, source.places[held[:3]])
