# SPDX-License-Identifier: MIT
"""Images are taken as they lie, with names, and labels where the user has said them."""

import numpy as np
import pytest
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.sources.given import open_images
from ltplugins.data.sources.packs import load_pack
from tests.kit.tiny import write_arrays, write_folder


def test_a_folder_of_classes(tmp_path):
    write_folder(tmp_path / "photos", (2, 0, 1), size=8)
    given = open_images(str(tmp_path / "photos"))
    assert given.names == ["class0/0.png", "class0/1.png", "class2/0.png"]
    assert given.labels.tolist() == [0, 0, 1]
    assert given.source.class_names == ("class0", "class2")
    assert given.source.load(2).shape == (8, 8, 3)


@pytest.mark.parametrize("counts", [(), (3,)], ids=["no class", "one class"])
def test_pictures_beside_the_classes_leave_labels_unknown(tmp_path, counts):
    write_folder(tmp_path, counts, size=8)
    assert (open_images(str(tmp_path)).labels is not None) if counts else True
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    given = open_images(str(tmp_path))
    assert given.names[0] == "a.png" and len(given.names) == 1 + sum(counts)
    assert given.labels is None


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        (["class0/0.png 4", "class1/0.png 9"], [4, 9]),
        (["class0/0.png", "class1/0.png"], None),
        (["class0/0.png 4", "class1/a 1.png"], None),
    ],
)
def test_a_list_with_labels_or_without(tmp_path, lines, labels):
    write_folder(tmp_path / "photos", (1, 1), size=8)
    for name in ("class0/0.png 4", "class1/a 1.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name, "png")
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines))
    given = open_images(str(path), str(tmp_path / "photos"))
    assert given.labels is None if labels is None else given.labels.tolist() == labels
    assert given.names == ([line[:-2] for line in lines] if labels else lines)


def test_arrays_with_labels_or_without(tmp_path):
    path = write_arrays(tmp_path / "x.npz", (2, 1))
    given = open_images(str(path))
    assert given.names == ["0", "1", "2"] and given.labels.tolist() == [0, 0, 1]
    np.save(tmp_path / "y.npy", np.zeros((4, 8, 8), np.uint8))
    assert open_images(str(tmp_path / "y.npy")).labels is None


def test_a_pack_and_its_parts():
    given = open_images("fashion_pack/probe")
    assert given.names[-1] == "fashion_pack/probe/999"
    assert given.labels.tolist() == load_pack()["probe_labels"].tolist()
    assert len(open_images("fashion_pack").names) == 15_000
    assert open_images("emoji_pack").names[0] == "emoji_pack/train/0"


def nothing(folder):
    return "no/such/place"


def empty(folder):
    return str(folder)


def texts(folder):
    (folder / "notes.txt").write_text("no picture.png")
    return str(folder)


def broken(folder):
    (folder / "x.npz").write_text("x")
    return str(folder / "x.npz")


def missing(folder):
    (folder / "list.txt").write_text("gone.png 1")
    return str(folder / "list.txt")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (nothing, "does not exist: expected a folder of images"),
        (empty, "no image in it"),
        (texts, r"no image in it.*Left out: 1 of \.txt"),
        (broken, r"cannot be read as \.npz"),
        (missing, "1 of 1 files are missing"),
        (lambda _: "fashion_pakc", "Did you mean 'fashion_pack'"),
        (lambda _: "fashion_pack/tset", "expected one of train, probe, test"),
        (lambda _: "emoji_pack/test", "no test part"),
    ],
)
def test_what_is_no_image_is_one_line(tmp_path, make, text):
    with pytest.raises(UserError, match=text) as error:
        open_images(make(tmp_path))
    assert "\n" not in str(error.value)


def test_a_root_is_of_lists_alone(tmp_path):
    write_folder(tmp_path, (1,), size=8)
    with pytest.raises(UserError, match="--root is for a list"):
        open_images(str(tmp_path), "elsewhere")
