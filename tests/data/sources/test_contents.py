# SPDX-License-Identifier: MIT
"""What data are, by their contents: exchanged pictures are noticed, moved ones are the same."""

import os
import shutil

import numpy as np
import pytest

from ltplugins.data.sources import contents
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.sources.contents import content_hash, file_hashes, labels_hash, pictures_hash
from ltplugins.data.sources.files import image_folder
from tests.kit.tiny import write_folder

OLD = 1_700_000_000  # seconds; a stamp that no clock of a file system is still at


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LTPLUGINS_CACHE", str(tmp_path / "cache"))
    # Files of this very moment are never trusted; here they are.
    monkeypatch.setattr(contents, "_GRAIN", -60)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "train", (3, 2), size=8)


def test_other_bytes_under_the_same_name_size_and_time_are_other_contents(folder):
    before = content_hash(image_folder(folder))
    file = folder / "class0/1.png"
    stat = file.stat()
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert content_hash(image_folder(folder)) != before


def test_moved_or_touched_files_are_the_same(folder, tmp_path):
    before = content_hash(image_folder(folder))
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert content_hash(image_folder(tmp_path / "elsewhere")) == before
    os.utime(folder / "class0/1.png", (OLD, OLD))
    assert content_hash(image_folder(folder)) == before


def test_bytes_are_read_once(folder, monkeypatch):
    paths = image_folder(folder).paths
    first = file_hashes(paths)
    read = []
    monkeypatch.setattr(contents, "_read", lambda path: read.append(path) or "new")
    assert file_hashes(paths) == first
    assert read == []
    os.utime(paths[2], (OLD, OLD))
    assert file_hashes(paths) == [*first[:2], "new", *first[3:]]
    assert read == [os.path.abspath(paths[2])]


def test_a_file_of_this_moment_is_read_again(folder, monkeypatch):
    monkeypatch.setattr(contents, "_GRAIN", 2.0)
    paths = image_folder(folder).paths
    file_hashes(paths)
    monkeypatch.setattr(contents, "_read", lambda path: "new")
    assert set(file_hashes(paths)) == {"new"}


@pytest.mark.parametrize("damage", ["{", "[]", None])
def test_without_a_cache_everything_is_read(damage, folder, cache):
    paths = image_folder(folder).paths
    first = file_hashes(paths)
    shutil.rmtree(cache)
    if damage is None:
        cache.write_text("a file where the folder should be")
    else:
        file_hashes(paths)
        [stored] = cache.glob("files/*.json")
        stored.write_text(damage)
    assert file_hashes(paths) == first


def test_a_file_that_is_gone_says_so(folder):
    paths = image_folder(folder).paths
    os.unlink(paths[0])
    assert file_hashes(paths)[0] == "absent"
    assert file_hashes([]) == []


def test_arrays_by_their_pixels_and_a_subset_as_its_own_source(monkeypatch):
    monkeypatch.setattr(contents, "_BLOCK", 3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (10, 4, 4, 3)).astype(np.uint8)
    source = from_arrays(images, np.arange(10) % 2)
    chosen = np.array([7, 1, 4, 2, 9])
    assert pictures_hash(source, chosen) == pictures_hash(source.subset(chosen))
    assert content_hash(source, chosen) == content_hash(source.subset(chosen))
    assert pictures_hash(source, chosen) != pictures_hash(source, chosen[::-1])
    other = from_arrays(images, 1 - np.arange(10) % 2)
    assert pictures_hash(other) == pictures_hash(source)
    assert labels_hash(other.targets) != labels_hash(source.targets)
    assert content_hash(other) != content_hash(source)


def test_a_subset_of_files(folder):
    source = image_folder(folder)
    chosen = np.array([4, 0, 2])
    assert pictures_hash(source, chosen) == pictures_hash(source.subset(chosen))
