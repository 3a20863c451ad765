# SPDX-License-Identifier: MIT
"""Tiles, their classes and their spatial split."""

import hashlib

import numpy as np
import pytest

from ltplugins.core.errors import UserError
from ltplugins.core.files import sha256
from ltplugins.data.sources.land import maps
from ltplugins.data.sources.land.blocks import NO_PART, PARTS, PROBE, TEST, TRAIN, fold_map
from ltplugins.data.sources.land.options import PIXELS_A_DEGREE, LandConfig
from ltplugins.data.sources.land.pool import land_pool
from ltplugins.data.sources.land.tiles import labelled_windows, land_tiles

EARTH = (maps.HEIGHT, maps.WIDTH)


def painted(corners, size):
    """Which pixels of the Earth windows cover, Bool[H W]."""
    seen = np.zeros(EARTH, dtype=bool)
    for top, left in corners:
        seen[top : top + size, left : left + size] = True
    return seen


def sizes(labels, num_classes):
    return np.bincount(labels, minlength=num_classes).tolist()


def test_the_maps_are_the_files_that_the_hashes_name():
    picture, cover = maps.load_maps()
    assert picture.shape == (*EARTH, 3) and cover.shape == EARTH
    assert picture.dtype == cover.dtype == np.uint8
    assert set(np.unique(cover)) == set(range(17)) and len(maps.COVER_NAMES) == 17
    assert sha256(maps.PICTURE_PATH) == maps.PICTURE_SHA256
    assert not picture.flags.writeable and not cover.flags.writeable
    # Water is where the picture is blue: both maps show the same places.
    red, blue = (picture[: maps.SOUTH_END, :, i].astype(int) for i in (0, 2))
    is_blue, is_water = blue > red + 10, cover[: maps.SOUTH_END] == maps.WATER
    assert (is_blue == is_water).mean() > 0.98
    assert (is_blue[:, 200:] == is_water[:, :-200]).mean() < 0.85
    terms = maps.PICTURE_PATH.with_name("land_pack.LICENSE.txt").read_text()
    for words in ("NASA Earth Observatory", "LP DAAC", "Jeffrey Whitaker", "Apache License"):
        assert words in terms


def test_a_damaged_map_is_refused(tmp_path, monkeypatch):
    copy = tmp_path / "land_cover.png"
    copy.write_bytes(maps.COVER_PATH.read_bytes()[:-1])
    monkeypatch.setattr(maps, "COVER_PATH", copy)
    with pytest.raises(UserError, match=r"damaged: .*scripts/packs/land.py"):
        maps.load_cover.__wrapped__()


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        (32, 16, [2386, 1511, 1414, 960, 814, 718, 718, 567, 351, 122, 79, 16, 7, 4]),
        (24, 12, [4392, 2765, 2612, 1878, 1575, 1387, 1335, 1020, 675, 246, 152, 36, 21, 13]),
    ],
)
def test_class_sizes(size, stride, expected):
    found = labelled_windows(size, stride, 0.5)
    counts = np.bincount(found.classes[found.is_pure])
    assert sorted(counts[counts > 0].tolist(), reverse=True) == expected


def test_a_tile_has_the_class_that_fills_it():
    cfg = LandConfig(tile=20, stride=13, purity=0.7, least=30)
    tiles, cover = land_tiles(cfg), maps.load_cover()
    assert list(tiles.classes) == sorted(tiles.classes) and 0 not in tiles.classes
    for (top, left), label in list(zip(tiles.corners, tiles.labels, strict=True))[::50]:
        under = cover[top : top + 20, left : left + 20]
        assert (under == tiles.classes[label]).mean() >= 0.7
    assert tiles.corners[:, 0].max() + 10 < maps.SOUTH_END
    assert min(sizes(tiles.labels, len(tiles.classes))) >= 30


def test_the_split_is_the_frozen_one():
    tiles = land_tiles(LandConfig())
    by_part = [sizes(tiles.labels[tiles.of(part)], 10) for part in PARTS]
    assert by_part == [
        [61, 393, 198, 684, 348, 453, 1251, 429, 271, 828],
        [23, 111, 56, 198, 116, 112, 374, 125, 83, 213],
        [20, 110, 59, 210, 81, 157, 355, 112, 90, 235],
    ]
    rows = np.column_stack([tiles.corners, tiles.labels, tiles.parts]).astype("<i8")
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == "d168e138f94dabec"


@pytest.mark.parametrize(
    "cfg",
    [
        LandConfig(),
        LandConfig(fold=3),
        LandConfig(tile=48, stride=11, block=7, folds=4, fold=3),
        LandConfig(tile=180, stride=30, least=5, purity=0.4),
    ],
)
def test_no_pixel_of_one_part_is_seen_by_another(cfg):
    tiles = land_tiles(cfg)
    seen = [painted(tiles.corners[tiles.of(part)], cfg.tile) for part in PARTS]
    for one, other in ((TRAIN, PROBE), (TRAIN, TEST), (PROBE, TEST)):
        assert seen[one].any() and not (seen[one] & seen[other]).any()
    assert not (painted(land_pool(cfg), cfg.tile) & (seen[PROBE] | seen[TEST])).any()
    # A tile beside a border would be in two parts: some are left out, and that is seen here.
    assert (tiles.parts == NO_PART).any()
    assert (painted(tiles.corners[tiles.parts == NO_PART], cfg.tile) & seen[TEST]).any()


def test_every_block_is_tested_on_once():
    cfgs = [LandConfig(fold=fold) for fold in range(5)]
    tiles = [land_tiles(cfg) for cfg in cfgs]
    tested = np.stack([t.parts == TEST for t in tiles])
    probed = np.stack([t.parts == PROBE for t in tiles])
    assert tested.sum(0).max() == probed.sum(0).max() == 1
    # What no fold tests lies across the border of two.
    side = 12 * PIXELS_A_DEGREE
    folds = np.kron(fold_map(12, 5), np.ones((side, side), dtype=int))
    for (top, left), once in zip(tiles[0].corners, tested.sum(0), strict=True):
        assert once == (len(np.unique(folds[top : top + 32, left : left + 32])) == 1)
    for t, labels in zip(tested, (t.labels for t in tiles), strict=True):
        assert min(sizes(labels[t], 10)) >= 15  # rare classes, too, in every fold


def test_the_folds_do_not_hang_on_the_tiles():
    """What is trained on at one size is never tested on at another."""
    small, large = LandConfig(tile=24, fold=2), LandConfig(tile=64, least=50, fold=2)
    trained = painted(land_tiles(small).corners[land_tiles(small).of(TRAIN)], 24)
    tested = painted(land_tiles(large).corners[land_tiles(large).of(TEST)], 64)
    assert not (trained & tested).any()


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (LandConfig(least=2000), r"data.least: expected .* two classes or more, got 2000. .*2,386"),
        (LandConfig(least=4), r"data.least 4, fold 0 of 5.* the training part has no tile of"),
    ],
)
def test_too_few_classes_or_tiles_are_refused(cfg, message):
    with pytest.raises(UserError, match=message):
        land_tiles(cfg)


def test_the_pool_is_what_no_class_fills():
    cfg = LandConfig()
    pool, cover = land_pool(cfg), maps.load_cover()
    kept = land_tiles(cfg).classes
    assert len(pool) > 1000
    for top, left in pool[::40]:
        shares = np.bincount(cover[top : top + 32, left : left + 32].ravel(), minlength=17) / 1024
        assert shares[list(kept)].max() < 0.5 and shares[0] <= 0.7
