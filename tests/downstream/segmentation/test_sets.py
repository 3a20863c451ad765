# SPDX-License-Identifier: MIT
"""Sets of images with masks: what their labels become, and what is refused."""

import logging

import numpy as np
import pytest
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.land.crops import land_crops
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.downstream.segmentation.options import MaskData
from ltplugins.downstream.segmentation.sets import on_the_split_of, open_masks
from tests.kit.masks import (
    SIDE,
    save,
    scene,
    write_ade20k,
    write_cityscapes,
    write_masks,
    write_voc,
)


def open_format(name, root, **keys):
    return open_masks(MaskData(format=name, path=str(root), **keys))


def test_a_folder(tmp_path):
    found = open_format("folder", write_masks(tmp_path))
    assert (len(found.train), len(found.test), found.num_classes) == (8, 4, 3)
    assert found.counts.pixels.sum() + found.counts.ignored == 8 * SIDE**2
    assert found.counts.ignored == 4 * SIDE
    assert found.counts.images.tolist() == [8, 8, 8]
    image, mask = found.train.pair(1)
    expected = scene(1)
    assert np.array_equal(image, expected[0])
    assert np.array_equal(mask, expected[1])


def test_another_label_may_be_no_class(tmp_path):
    write_masks(tmp_path)
    for path in tmp_path.glob("*/masks/*.png"):
        labels = np.array(Image.open(path))
        save(np.where(labels == 255, 9, labels).astype(np.uint8), path)
    found = open_format("folder", tmp_path, ignore=9, num_classes=3)
    assert found.counts.ignored == 4 * SIDE
    assert found.train.pair(0)[1].max() == 255


def test_voc(tmp_path):
    found = open_format("voc", write_voc(tmp_path))
    assert (len(found.train), len(found.test), found.num_classes) == (2, 1, 21)
    assert set(np.flatnonzero(found.counts.pixels)) == {0, 8}
    assert found.class_names[8] == "cat"
    image, mask = found.test.pair(0)
    assert image.shape == (SIDE, SIDE, 3)
    assert np.array_equal(mask, scene(3, (0, 8, 255))[1])


def test_cityscapes(tmp_path):
    found = open_format("cityscapes", write_cityscapes(tmp_path))
    assert (len(found.train), len(found.test), found.num_classes) == (2, 2, 19)
    assert (found.class_names[0], found.class_names[18]) == ("road", "bicycle")
    assert np.array_equal(found.train.pair(1)[1], scene(1, (0, 18, 255))[1])


def test_ade20k(tmp_path):
    found = open_format("ade20k", write_ade20k(tmp_path))
    assert found.num_classes == 150
    assert np.array_equal(found.train.pair(1)[1], scene(1, (255, 0, 149))[1])
    assert found.class_names[149] == "class 150"
    lines = ["Idx\tRatio\tTrain\tVal\tName"]
    lines += [f"{k}\t0\t1\t1\tname{k}, other{k}" for k in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(lines))
    assert open_format("ade20k", tmp_path).class_names[149] == "name150"


def test_land_is_cut_as_its_crops():
    found = open_masks(MaskData(stride=128, fold=1))
    expected = {p: land_crops(p, LandConfig(tile=64, stride=128, fold=1)) for p in ("train", "val")}
    assert np.array_equal(found.train.masks, expected["train"].masks)
    assert np.array_equal(found.val.images, expected["val"].images)
    assert found.counts.pixels.tolist() == expected["train"].pixel_counts.tolist()
    assert "fold 1 of 5" in found.description
    other = open_masks(MaskData(stride=128, fold=2))
    assert other.fingerprint() != found.fingerprint()
    assert open_masks(MaskData(stride=128, fold=1)).fingerprint() == found.fingerprint()


def test_land_is_split_as_the_encoder_had_it(caplog):
    theirs = DataConfig("land_pack", fold=3, block=15)
    found = on_the_split_of(theirs, MaskData())
    assert (found.fold, found.block, found.folds) == (3, 15, 5)
    with caplog.at_level(logging.WARNING, logger="ltplugins"):
        assert on_the_split_of(theirs, MaskData(fold=0)).fold == 0
    assert "data.fold is 0, and the encoder was trained with 3" in caplog.text
    assert on_the_split_of(DataConfig("fashion_pack"), MaskData()) == MaskData()


def test_a_mask_of_another_size(tmp_path):
    write_masks(tmp_path)
    save(np.zeros((SIDE, SIDE // 2), np.uint8), tmp_path / "test/masks/2.png")
    with pytest.raises(UserError, match=r"2.png: expected a mask of 64 x 64 pixels.*got 32 x 64"):
        open_format("folder", tmp_path)


def test_an_image_that_lies_on_its_side(tmp_path):
    """A camera's JPEG is turned when it is decoded, and so is its size."""
    write_masks(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = Image.fromarray(np.zeros((32, SIDE, 3), np.uint8))
    sideways.save(tmp_path / "test/images/2.png", exif=exif)
    save(np.zeros((SIDE, 32), np.uint8), tmp_path / "test/masks/2.png")
    image, mask = open_format("folder", tmp_path).test.pair(2)
    assert image.shape[:2] == mask.shape == (SIDE, 32)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_label_outside_the_classes(part, tmp_path):
    write_masks(tmp_path)
    labels = np.array(Image.open(tmp_path / part / "masks/1.png"))
    labels[0, 0] = 7
    save(labels, tmp_path / part / "masks/1.png")
    with pytest.raises(UserError, match=rf"1.png \({part}\): expected labels from 0 to 2.*got 7"):
        open_format("folder", tmp_path, num_classes=3)


def test_a_test_label_beyond_the_training_ones(tmp_path):
    write_masks(tmp_path)
    save(np.full((SIDE, SIDE), 3, np.uint8), tmp_path / "test/masks/0.png")
    with pytest.raises(UserError, match=r"0.png \(test\): expected labels from 0 to 2"):
        open_format("folder", tmp_path)
    assert open_format("folder", tmp_path, num_classes=4).num_classes == 4


def test_a_label_that_a_format_does_not_have(tmp_path):
    write_voc(tmp_path)
    save(np.full((SIDE, SIDE), 30, np.uint8), tmp_path / "SegmentationClass/2007_000003.png")
    with pytest.raises(
        UserError, match="expected labels from 0 to 20, or 255 for no class, got 30"
    ):
        open_format("voc", tmp_path)


def test_an_image_without_a_mask(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "train/masks/3.png").unlink()
    with pytest.raises(UserError, match=r"a mask for each of 8 images, 1 have none, such as 3.png"):
        open_format("folder", tmp_path)


def test_a_mask_in_colour(tmp_path):
    write_masks(tmp_path)
    save(np.zeros((SIDE, SIDE, 3), np.uint8), tmp_path / "train/masks/0.png")
    with pytest.raises(UserError, match=r"0.png: expected a mask of one label a pixel.*mode RGB"):
        open_format("folder", tmp_path)


def test_one_class(tmp_path):
    write_masks(tmp_path)
    for path in tmp_path.glob("*/masks/*.png"):
        save(np.zeros((SIDE, SIDE), np.uint8), path)
    with pytest.raises(UserError, match="two classes or more, got 1"):
        open_format("folder", tmp_path)


def test_a_damaged_file(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "train/images/0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"images/0.png cannot be decoded"):
        open_format("folder", tmp_path)


def test_an_image_whose_end_is_gone(tmp_path):
    """Its head says the right size: it is decoded once, before anything is made."""
    write_masks(tmp_path)
    file = tmp_path / "test/images/2.png"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"test/images/2.png cannot be decoded \(OSError: "):
        open_format("folder", tmp_path)


@pytest.mark.parametrize("name", ["folder", "voc", "cityscapes", "ade20k"])
def test_another_folder(name, tmp_path):
    with pytest.raises(UserError, match=r"data.path: expected the folder of a set of format"):
        open_format(name, tmp_path / "nothing")
    with pytest.raises(UserError, match=r"expected pictures|is missing: data.path must be"):
        open_format(name, tmp_path)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"path": "x"}, "path: expected nothing, for land_pack brings its own"),
        ({"format": "voc"}, "path: expected the folder of a set of format voc"),
        ({"format": "voc", "path": "x", "fold": 1}, "fold: expected nothing with data.format=voc"),
        ({"ignore": 3}, "ignore: expected nothing with data.format=land_pack"),
        ({"format": "voc", "path": "x", "num_classes": 3}, "num_classes: expected nothing"),
    ],
)
def test_keys_that_do_not_go_together(keys, text):
    with pytest.raises(UserError, match=text):
        MaskData(**keys)
