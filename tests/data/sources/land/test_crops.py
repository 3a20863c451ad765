# SPDX-License-Identifier: MIT
"""Crops with masks."""

import numpy as np
import pytest

from ltplugins.data.sources.land.blocks import TRAIN
from ltplugins.data.sources.land.crops import land_crops
from ltplugins.data.sources.land.maps import load_maps
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.data.sources.land.tiles import labelled_windows, land_tiles


def painted(corners, size):
    seen = np.zeros((2700, 5400), dtype=bool)
    for top, left in corners:
        seen[top : top + size, left : left + size] = True
    return seen


def test_masks_lie_under_their_images():
    crops = land_crops("test")
    picture, cover = load_maps()
    assert crops.images.shape == (len(crops.masks), 64, 64, 3) and crops.masks.shape[1:] == (64, 64)
    for i in range(0, len(crops.masks), 25):
        top, left = crops.corners[i]
        assert np.array_equal(crops.images[i], picture[top : top + 64, left : left + 64])
        assert np.array_equal(crops.masks[i], cover[top : top + 64, left : left + 64])
        assert (crops.masks[i] == 0).mean() <= 0.7
    # Water is dark and blue in the image where the mask says so.
    sea = crops.images[crops.masks == 0].mean(0)
    land = crops.images[crops.masks > 0].mean(0)
    assert sea[2] > 2 * sea[0] and land[0] > land[2] and sea.sum() < land.sum()


def test_the_parts_are_those_of_the_tiles():
    parts = [land_crops(part) for part in ("train", "val", "test")]
    assert [len(crops.masks) for crops in parts] == [1621, 374, 361]
    seen = [painted(crops.corners, 64) for crops in parts]
    assert not any((seen[a] & seen[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))
    tiles = land_tiles(LandConfig())
    trained = painted(tiles.corners[tiles.of(TRAIN)], 32)
    assert not (trained & seen[2]).any()


def test_rare_classes_of_pixels():
    crops = land_crops("train")
    shares = crops.pixel_counts / crops.pixel_counts.sum()
    assert len(shares) == len(crops.class_names) == 17
    assert (shares < 0.01).sum() == 5 and (shares > 0).all()


def test_the_number_of_crops_on_the_whole_earth():
    found = labelled_windows(64, 32, 0.5)
    assert (found.counts[:, 0] <= 0.7 * 64**2).sum() == 3766


@pytest.mark.parametrize("least_land", [0.0, 1.0])
def test_a_share_of_land(least_land):
    cfg = LandConfig(tile=32, stride=32)
    crops = land_crops("test", cfg, least_land=least_land)
    assert ((crops.masks > 0).mean((1, 2)) >= least_land).all()
    some_sea = (crops.masks == 0).all((1, 2)).any()
    assert some_sea == (least_land == 0.0)
