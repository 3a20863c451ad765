# SPDX-License-Identifier: MIT
"""land_pack and land_pool by the door that every data set comes through."""

import numpy as np
import pytest

from ltplugins.core.errors import UserError
from ltplugins.data.sources.build import build_ood_source
from ltplugins.data.sources.contents import content_hash, pictures_hash
from ltplugins.data.sources.land.maps import load_maps
from tests.kit.data import data_config, source_of, split_of

LAND = {"dataset": "land_pack"}


def test_the_parts_as_sources():
    train, probe, test = (source_of(LAND, part) for part in ("train", "probe", "test"))
    assert [len(s) for s in (train, probe, test)] == [4916, 1411, 1429]
    assert train.images.shape == (4916, 32, 32, 3) and train.images.dtype == np.uint8
    assert train.class_names[0] == "evergreen needleleaf forest" and train.num_classes == 10
    assert train.class_names == probe.class_names == test.class_names
    assert train.record == test.record
    assert (train.record.num_classes, train.record.image_size, train.record.small_stem) == (
        10,
        32,
        True,
    )
    mean = (train.images / 255).mean((0, 1, 2))
    assert np.allclose(mean, train.record.mean, atol=0.02)
    assert data_config(LAND).has_test_part


def test_other_cuts_have_their_own_records():
    cfg = {**LAND, "tile": 96, "stride": 48, "least": 40, "fold": 1}
    source = source_of(cfg)
    assert source.images.shape[1:] == (96, 96, 3)
    assert source.record.image_size == 96 and not source.record.small_stem
    assert source.record.num_classes == source.num_classes < 10


def test_pictures_are_known_by_file_and_place(monkeypatch):
    """Another decoder's last bit is the same data; another place, size or order is not."""
    source = source_of(LAND, "test")
    known = content_hash(source)
    brighter = source.subset(np.arange(len(source)))
    brighter.images = brighter.images ^ 1
    assert content_hash(brighter) == known
    order = np.arange(len(source))[::-1]
    assert pictures_hash(source, order) == pictures_hash(source.subset(order))
    hashes = {
        pictures_hash(source_of({**LAND, **other}, "test"))
        for other in ({}, {"fold": 1}, {"stride": 8}, {"tile": 30, "stride": 16})
    }
    assert len(hashes) == 4
    assert (
        pictures_hash(source) == "e0bfe3befeed0ca87cd3c7f880992edb66591bcdef925dd929fb908895fc5d84"
    )


def test_an_artificial_tail_on_top():
    source = source_of(LAND)
    block = {"kind": "exp", "factor": 10, "max_count": 60}
    split = split_of(source.targets, source.num_classes, block)
    assert split.class_counts.max() == 60 and split.class_counts.min() == 6
    with pytest.raises(UserError, match=r"class 0: 491 images asked, 61 available"):
        split_of(source.targets, source.num_classes, {"kind": "exp", "factor": 10})


def test_the_pool_is_cut_as_the_tiles_are():
    cfg = {**LAND, "tile": 24, "fold": 2, "ood": {"dataset": "land_pool"}}
    pool = build_ood_source(data_config({**cfg, "sampler": "id_plus_ood"}))
    assert pool.images.shape[1:] == (24, 24, 3) and (pool.targets == -1).all()
    same = source_of({"dataset": "land_pool", "tile": 24, "fold": 2, "no_labels": True})
    assert content_hash(pool) == content_hash(same)
    assert not data_config({"dataset": "land_pool"}).has_test_part
    with pytest.raises(UserError, match="land_pool has no test part: it is a pool"):
        source_of({"dataset": "land_pool"}, "test")
    with pytest.raises(UserError, match="no window of 8 pixels is left"):
        source_of({"dataset": "land_pool", "tile": 8, "purity": 0.05, "least": 1, "stride": 16})


def test_the_picture_is_read_once():
    assert load_maps() is load_maps()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"stride": 0}, r"data.stride: expected a whole number of 1 or more"),
        ({"stride": 3}, r"data.stride: expected an eighth of the tile or more \(4 pixels\), got 3"),
        ({"tile": 181}, r"data.tile: expected at most the side of a block, 180 pixels"),
        ({"tile": 64, "block": 4}, r"data.tile: expected at most the side of a block, 60 pixels"),
        ({"purity": 0}, r"data.purity: expected a number above 0 and of at most 1, got 0"),
        ({"purity": 1.1}, r"data.purity: expected a number above 0"),
        ({"fold": 5}, r"data.fold: expected a number from 0 to 4 \(data.folds 5\), got 5"),
        ({"fold": -1}, r"data.fold: expected a whole number of 0 or more"),
        ({"folds": 2}, r"data.folds: expected a whole number of 3 or more"),
        ({"val_path": "p"}, r"data.val_path: expected null, for land_pack is embedded"),
        ({"dataset": "cifar10", "tile": 32}, r"data.tile: expected null, for it is of land_pack"),
    ],
)
def test_bad_keys_are_one_line(keys, message):
    with pytest.raises(UserError, match=message) as told:
        data_config({**LAND, **keys})
    assert "\n" not in str(told.value)
