# SPDX-License-Identifier: MIT
"""Folders as they are: thumbnails, other endings, hidden files, names of any encoding."""

import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.sources.contents import content_hash
from ltplugins.data.sources.files import file_list, flat_folder, image_folder
from tests.kit.tiny import write_folder


def test_the_stem_follows_the_median_and_not_the_first_file(tmp_path: Path) -> None:
    write_folder(tmp_path, (6, 3), size=160)
    Image.new("RGB", (48, 48)).save(tmp_path / "class0/0-thumbnail.png")
    record = image_folder(tmp_path).record
    assert (record.image_size, record.small_stem, record.grey) == (160, False, False)


def test_a_huge_first_file_is_looked_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, (3,), size=32)
    Image.new("1", (400, 400)).save(tmp_path / "class0/0-scan.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    assert image_folder(tmp_path).record.image_size == 32


def test_grey_files_are_known_as_such(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (20, 20)).save(tmp_path / "a/0.png")
    assert image_folder(tmp_path).record.grey
    Image.new("RGB", (20, 20)).save(tmp_path / "a/1.png")
    assert not image_folder(tmp_path).record.grey


def test_what_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, (2, 2))
    for name in ("a.gif", "b.gif", "c.jfif", "photo", ".DS_Store", "._0.png"):
        (tmp_path / "class1" / name).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert len(image_folder(tmp_path)) == 4
    assert "left out: 2 of .gif, 1 of .jfif, 1 without an ending" in caplog.text
    for file in (tmp_path / "class1").glob("[01].png"):
        file.unlink()
    with pytest.raises(UserError, match=r"class1\. Accepted: .* Left out: 2 of .gif"):
        image_folder(tmp_path)


def test_the_folder_above_the_parts_is_refused(tmp_path: Path) -> None:
    """Its parts were taken for classes, and the test images were trained on."""
    for part in ("train", "val"):
        write_folder(tmp_path / part, (2, 2))
    with pytest.raises(UserError, match=r"\(train, val\) are parts .* data.train_path to .*/train"):
        image_folder(tmp_path)
    write_folder(tmp_path / "boat", (2,))
    assert image_folder(tmp_path).class_names == ("boat", "train", "val")  # a train is a class here


def test_classes_may_be_called_as_parts_are(tmp_path: Path) -> None:
    write_folder(tmp_path, (2, 2))
    for old, new in (("class0", "test"), ("class1", "train")):
        (tmp_path / old).rename(tmp_path / new)
    assert image_folder(tmp_path).class_names == ("test", "train")


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, (2, 2))
    write_folder(tmp_path / "class0/.thumbs", (1,))
    (tmp_path / ".ipynb_checkpoints").mkdir()
    source = image_folder(tmp_path)
    assert (source.class_names, len(source)) == (("class0", "class1"), 4)
    assert len(flat_folder(tmp_path)) == 4


def test_names_in_any_encoding(tmp_path: Path) -> None:
    write_folder(tmp_path, (2, 2))
    try:
        os.rename(tmp_path / "class1", os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    source = image_folder(tmp_path)
    assert source.class_names == ("caf\N{REPLACEMENT CHARACTER}", "class0")
    assert source.load(0).shape == (32, 32, 3)
    assert content_hash(source)
    again = image_folder(tmp_path, class_names=source.class_names)
    assert again.targets.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "links",
    [
        {"class0/up": ".."},
        {"class0/x": ".", "class0/y": "."},
        {"class0/x": "more", "class0/y": "more"},
        {"class1/far": "{tmp}/store", "{tmp}/store/back": "{tmp}"},
    ],
)
def test_a_folder_is_read_once_whatever_links_to_it(
    links: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    write_folder(root, (3, 2))
    (root / "class0/more").mkdir()
    (tmp_path / "store").mkdir()
    for at, to in links.items():
        (root / at.format(tmp=tmp_path)).symlink_to(to.format(tmp=tmp_path))
    source = image_folder(root)
    assert source.targets.tolist() == [0, 0, 0, 1, 1]
    assert "links to folders that hold them or were read" in caplog.text
    assert len(flat_folder(root)) == 5


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    write_folder(tmp_path / "root", (1, 1))
    write_folder(tmp_path / "store", (2,))
    (tmp_path / "root/class1/link").symlink_to(tmp_path / "store")
    (tmp_path / "root/class2").symlink_to(tmp_path / "store/class0")
    assert image_folder(tmp_path / "root").targets.tolist() == [0, 1, 1, 1, 2, 2]


def test_a_class_that_links_to_the_classes_has_no_image(tmp_path: Path) -> None:
    write_folder(tmp_path, (2, 2))
    (tmp_path / "class2").symlink_to(".")
    with pytest.raises(UserError, match="1 of 3 class folders have no image: class2"):
        image_folder(tmp_path)


def test_pipes_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, (2, 2))
    os.mkfifo(tmp_path / "class0/pipe.png")
    (tmp_path / "class1/null.png").symlink_to(os.devnull)
    assert len(image_folder(tmp_path)) == 4
    assert "2 pipes or devices" in caplog.text
    (tmp_path / "list.txt").write_text("class0/0.png 0\nclass0/pipe.png 1\n")
    with pytest.raises(UserError, match=r"1 of 2 files are missing, the first is .*pipe\.png"):
        file_list(tmp_path / "list.txt")
