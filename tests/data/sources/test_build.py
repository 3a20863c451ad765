# SPDX-License-Identifier: MIT
"""Sources by path and from code."""

import numpy as np
import pytest
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.sources.base import CorruptImage
from ltplugins.data.sources.files import file_list, image_folder
from ltplugins.data.sources.records import IMAGENET_MEAN
from tests.kit.data import data_config, source_of


def save_image(path, value=0, size=(10, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "train"
    for name, count in [("bird", 1), ("ant", 2)]:
        for i in range(count):
            save_image(root / name / f"{i}.png", value=10 * i)
    (root / "ant" / "notes.txt").write_text("no image")
    return root


def build(split="train", **keys):
    return source_of({"dataset": "custom", **keys}, split)


def test_image_folder(folder):
    source = build(train_path=str(folder))
    assert source.class_names == ("ant", "bird")
    assert source.targets.tolist() == [0, 0, 1]
    assert source.targets.dtype == np.int64
    assert source.images is None
    image = source.load(1)
    assert image.dtype == np.uint8
    assert image.shape == (8, 10, 3)
    assert image[0, 0].tolist() == [10, 0, 255]
    assert source.record.mean == IMAGENET_MEAN
    assert source.record.small_stem  # 10 pixels: the 7x7 stem would leave one
    assert (source.record.image_size, source.record.num_classes) == (10, 2)


def test_image_folder_is_in_torchvisions_order(folder):
    from torchvision.datasets import ImageFolder

    save_image(folder / "ant" / "sub" / "a.PNG")
    save_image(folder / "ant" / "10.png")
    theirs = ImageFolder(str(folder))
    ours = image_folder(folder)
    assert ours.paths == [path for path, _ in theirs.samples]
    assert ours.targets.tolist() == theirs.targets


def test_imagenet_names_are_folders_with_imagenets_record(folder):
    source = source_of({"dataset": "imagenet100", "train_path": str(folder)})
    assert (source.record.name, source.record.image_size) == ("imagenet100", 224)
    assert not source.record.small_stem
    assert source.num_classes == source.record.num_classes == 2


def test_test_part_takes_the_classes_of_the_training_part(folder, tmp_path):
    save_image(tmp_path / "val" / "bird" / "v.png")
    keys = {"train_path": str(folder), "val_path": str(tmp_path / "val")}
    assert build("test", **keys).targets.tolist() == [1]
    assert build("test", **keys).num_classes == 2
    assert build("probe", **keys).targets.tolist() == [0, 0, 1]
    probe = build("probe", **keys, probe_path=str(tmp_path / "val"))
    assert probe.targets.tolist() == [1]
    save_image(tmp_path / "val" / "cat" / "v.png")
    with pytest.raises(UserError, match=r"class folder 'cat' is not in the training part"):
        build("test", **keys)


def test_has_test_part(folder):
    assert not data_config({"dataset": "custom", "train_path": str(folder)}).has_test_part
    assert data_config({"dataset": "custom", "train_path": "x", "val_path": "y"}).has_test_part
    assert data_config({"dataset": "fashion_pack"}).has_test_part
    with pytest.raises(UserError, match=r"data.val_path is missing"):
        build("test", train_path=str(folder))


def test_folder_errors(tmp_path, folder):
    with pytest.raises(UserError, match=r"no such folder: .*nowhere"):
        build(train_path=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no class folder in it; expected empty/CLASS/image.jpg"):
        build(train_path=str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"empty: no image in it"):
        build(train_path=str(tmp_path / "empty"), no_labels=True)
    (folder / "cow").mkdir()
    with pytest.raises(UserError, match=r"1 of 3 class folders have no image: cow"):
        build(train_path=str(folder))
    with pytest.raises(UserError, match=r"data.train_path is missing"):
        build()


def test_images_without_labels(folder):
    source = build(train_path=str(folder), no_labels=True)
    assert source.targets.tolist() == [-1, -1, -1]
    assert source.num_classes == 1


def write_list(tmp_path, text):
    for name in ("a b.png", "c.png", "d.png"):
        save_image(tmp_path / "img" / name)
    path = tmp_path / "list.txt"
    path.write_text(text)
    return path


def test_file_list(tmp_path):
    path = write_list(tmp_path, "img/a b.png 1\n\nimg/c.png 0\n")
    source = build(train_path=str(path), format="file_list")
    assert source.targets.tolist() == [1, 0]
    assert source.num_classes == 2
    assert source.load(0).shape == (8, 10, 3)
    path.write_text("a b.png 0")
    source = build(train_path=str(path), format="file_list", root=str(tmp_path / "img"))
    assert len(source) == 1
    path.write_text("a b.png\nc.png")
    source = file_list(path, tmp_path / "img", no_labels=True)
    assert source.targets.tolist() == [-1, -1]
    assert source.load(0).shape == (8, 10, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "img/c.png 0\nimg/x.png 1\nimg/y.png 0",
            r"2 of 3 files are missing, the first is .*x.png",
        ),
        ("img/c.png 0\nimg/d.png one", "line 2: expected 'path label', got 'img/d.png one'"),
        ("img/c.png 0\nimg/d.png -1", "line 2: expected 'path label'"),
        ("img/c.png", "line 1: expected 'path label'"),
        ("img/c.png 0\nimg/d.png 3", "2 of 4 classes have no image: 1, 2. Labels must run from 0"),
        ("\n \n", "the list is empty"),
    ],
)
def test_bad_file_lists(tmp_path, text, message):
    path = write_list(tmp_path, text)
    with pytest.raises(UserError, match=message):
        build(train_path=str(path), format="file_list")


def test_file_list_of_a_test_part(tmp_path):
    path = write_list(tmp_path, "img/c.png 0\nimg/d.png 1\nimg/a b.png 2")
    val = tmp_path / "val.txt"
    val.write_text("img/c.png 2")
    keys = {"format": "file_list", "train_path": str(path), "val_path": str(val)}
    assert build("test", **keys).num_classes == 3
    val.write_text("img/c.png 3")
    with pytest.raises(UserError, match=r"line 1: label 3 is outside the 3 classes"):
        build("test", **keys)
    with pytest.raises(UserError, match=r"no such file: none.txt"):
        build(format="file_list", train_path="none.txt")


def test_arrays_from_files(tmp_path):
    images = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    np.savez(tmp_path / "set.npz", images=images, labels=np.array([1, 0]))
    np.save(tmp_path / "set.npy", images[..., 0])
    np.save(tmp_path / "set_labels.npy", np.array([0, 0], dtype=np.uint8))
    colour = build(train_path=str(tmp_path / "set.npz"), format="arrays")
    assert (colour.load(1) == images[1]).all()
    assert colour.targets.tolist() == [1, 0]
    grey = build(train_path=str(tmp_path / "set.npy"), format="arrays")
    assert grey.images.shape == (2, 4, 5)  # one channel until the views are made
    assert grey.load(0).shape == (4, 5, 3)
    assert (grey.load(0) == images[0, ..., :1]).all()
    unlabelled = build(train_path=str(tmp_path / "set.npy"), format="arrays", no_labels=True)
    assert unlabelled.targets.tolist() == [-1, -1]


GOOD = np.zeros((3, 4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GOOD.transpose(0, 3, 1, 2), [0, 0, 0], r"got \(3, 3, 4, 4\). Channels come last"),
        (GOOD[0, 0], [0], r"expected shape \(N, H, W\).* got \(4, 3\)"),
        (GOOD.astype(np.float32), [0, 0, 0], "expected uint8 in 0..255, got float32"),
        (GOOD, [0, 0], "3 images, but 2 labels"),
        (GOOD, [0.0, 0.0, 0.0], "one-dimensional integer array, got float64"),
        (GOOD, [0, -1, 0], r"labels\[1\] is -1; .*data.no_labels: true"),
        (GOOD, [0, 2, 0], "1 of 3 classes have no image: 1"),
        (GOOD[:0], [], "no image in it"),
    ],
)
def test_bad_arrays(images, labels, message):
    with pytest.raises(UserError, match=message):
        from_arrays(images, np.array(labels))


def test_class_names_and_labels_must_agree():
    with pytest.raises(UserError, match=r"label 2 found, but there are 2 classes"):
        from_arrays(GOOD, np.array([0, 1, 2]), class_names=["a", "b"])


def test_bad_array_files(tmp_path):
    np.savez(tmp_path / "x.npz", x=GOOD)
    with pytest.raises(UserError, match=r"no array 'images' in it; found x"):
        build(train_path=str(tmp_path / "x.npz"), format="arrays")
    np.save(tmp_path / "y.npy", GOOD)
    with pytest.raises(UserError, match=r"no such file: .*y_labels.npy, the labels of y.npy"):
        build(train_path=str(tmp_path / "y.npy"), format="arrays")
    (tmp_path / "z.npz").write_text("nothing")
    with pytest.raises(UserError, match=r"read as .npz or .npy: This file contains [^.]*\.$"):
        build(train_path=str(tmp_path / "z.npz"), format="arrays")
    with pytest.raises(UserError, match=r"no such file: .*w.npz"):
        build(train_path=str(tmp_path / "w.npz"), format="arrays")


def test_corrupt_image_is_named(folder):
    path = folder / "ant" / "0.png"
    path.write_bytes(path.read_bytes()[:40])
    source = build(train_path=str(folder))
    with pytest.raises(CorruptImage) as caught:
        source.load(0)
    assert caught.value.path == str(path)
    assert source.load(1).shape == (8, 10, 3)


def test_fraction_is_solo_learns(tmp_path):
    from sklearn.model_selection import train_test_split

    labels = np.repeat([0, 1], [30, 10])
    images = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    source = build(train_path=str(tmp_path / "set.npz"), format="arrays", fraction=0.5)
    expected, _ = train_test_split(np.arange(40), train_size=0.5, stratify=labels, random_state=42)
    assert source.images[:, 0, 0].tolist() == expected.tolist()
    assert np.bincount(source.targets).tolist() == [15, 5]
    with pytest.raises(UserError, match=r"above 0 and below 1, or -1, got 1.5"):
        build(train_path="x", fraction=1.5)


def test_unknown_names_and_keys():
    with pytest.raises(UserError, match=r"^data.dataset: .*got 'cifar11'. Did you mean 'cifar10'"):
        source_of({"dataset": "cifar11"})
    with pytest.raises(UserError, match=r"unknown key 'data.train_pth'. Did you mean 'train_path'"):
        build(train_pth="x")
    with pytest.raises(UserError, match=r"asks for the engine dali, and data.engine is batched"):
        build(train_path="x", format="dali", engine="batched")
    with pytest.raises(UserError, match=r"data.format: expected one of image_folder, .*got 'h5'"):
        build(train_path="x", format="h5")
