# SPDX-License-Identifier: MIT
"""Sources by name, on tiny files in the official formats, and the embedded pack."""

import gzip
import importlib.util
import os
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from ltplugins.core.errors import UserError
from ltplugins.core.files import sha256
from ltplugins.data.sources import named as sources_named
from ltplugins.data.sources import packs as pack
from ltplugins.data.sources.idx import read_fashion_idx, read_idx
from tests.kit.data import source_of
from tests.kit.paths import ROOT
from tests.kit.tiny import write_cifar10, write_cifar100


def idx_bytes(array):
    header = b"\x00\x00\x08" + bytes([array.ndim])
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def no_md5(monkeypatch):
    """Accept files that are not the official ones, as long as they are there."""
    for module in (datasets.cifar, datasets.stl10):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: os.path.isfile(path))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("network is unreachable")

    for module in (datasets.cifar, datasets.stl10, datasets.mnist):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)
    monkeypatch.setattr(sources_named, "DEBIAN_FASHION", "nowhere")


def test_cifar10(tmp_path, no_md5):
    write_cifar10(tmp_path)
    cfg = {"dataset": "cifar10", "train_path": str(tmp_path), "val_path": "elsewhere"}
    train = source_of(cfg)
    assert train.images.shape == (10, 32, 32, 3)
    assert train.targets.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert train.load(3)[5, 5].tolist() == [1, 200, 1]
    assert train.class_names[3] == "name3"
    assert train.record.name == "cifar10"
    assert source_of(cfg, "test").targets.tolist() == [5, 4]
    assert len(source_of(cfg, "probe")) == 10


def test_cifar100_has_its_own_statistics(tmp_path, no_md5):
    write_cifar100(tmp_path)
    cfg = {"dataset": "cifar100", "train_path": str(tmp_path)}
    train = source_of(cfg)
    assert (len(train), train.num_classes, len(source_of(cfg, "test"))) == (6, 100, 3)
    assert train.record.mean == (0.5071, 0.4865, 0.4409)
    assert train.record.small_stem


def write_stl10(root):
    base = root / "stl10_binary"
    base.mkdir()
    for name, count in [("train", 3), ("test", 2), ("unlabeled", 4)]:
        images = np.zeros((count, 3, 96, 96), dtype=np.uint8)
        images[:, 1, 2, 7] = 50  # the files are column-major: row 7, column 2 in the end
        images.tofile(base / f"{name}_X.bin")
    (base / "train_y.bin").write_bytes(bytes([1, 2, 10]))
    (base / "test_y.bin").write_bytes(bytes([3, 4]))
    (base / "class_names.txt").write_text("\n".join(f"n{c}" for c in range(10)))
    (base / "fold_indices.txt").write_text("0")


def test_stl10(tmp_path, no_md5):
    write_stl10(tmp_path)
    cfg = {"dataset": "stl10", "train_path": str(tmp_path)}
    train = source_of(cfg)
    assert train.targets.tolist() == [0, 1, 9, -1, -1, -1, -1]
    assert train.load(0).shape == (96, 96, 3)
    assert train.load(0)[7, 2].tolist() == [0, 50, 0]
    assert source_of(cfg, "test").targets.tolist() == [2, 3]
    assert source_of(cfg, "probe").targets.tolist() == [0, 1, 9]
    labelled = source_of({**cfg, "imbalance": {"kind": "exp", "factor": 1}})
    assert labelled.targets.tolist() == [0, 1, 9]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("stl10", "stl10_binary.tar.gz"),
        ("fashion_mnist", "FashionMNIST/raw/"),
    ],
)
def test_no_network_says_what_to_put_where(tmp_path, no_network, name, file):
    root = tmp_path / "new"
    with pytest.raises(
        UserError, match=rf"{name} is not in .*new and the download failed"
    ) as error:
        source_of({"dataset": name, "train_path": str(root)})
    assert file in str(error.value)
    assert f"into {root}" in str(error.value)
    assert "data.dataset=fashion_pack" in str(error.value)


def write_fashion(folder, gz):
    folder.mkdir(parents=True)
    for stem, count in [("train", 4), ("t10k", 2)]:
        images = np.arange(count * 6, dtype=np.uint8).reshape(count, 3, 2)
        labels = np.arange(count, dtype=np.uint8)
        for name, array in [("images-idx3", images), ("labels-idx1", labels)]:
            data = idx_bytes(array)
            path = folder / f"{stem}-{name}-ubyte{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(data) if gz else data)


@pytest.mark.parametrize(("inner", "gz"), [("", True), ("FashionMNIST/raw", False)])
def test_fashion_mnist_from_idx_files(tmp_path, inner, gz):
    write_fashion(tmp_path / "set" / inner, gz)
    cfg = {"dataset": "fashion_mnist", "train_path": str(tmp_path / "set")}
    train = source_of(cfg)
    assert train.images.shape == (4, 3, 2)
    assert train.load(1)[:, :, 2].tolist() == [[6, 7], [8, 9], [10, 11]]
    assert source_of(cfg, "test").targets.tolist() == [0, 1]
    assert source_of(cfg, "probe").targets.tolist() == [0, 1, 2, 3]
    assert len(set(train.record.mean)) == len(set(train.record.std)) == 1


def test_bad_idx_files(tmp_path):
    path = tmp_path / "x-idx1-ubyte"
    path.write_bytes(idx_bytes(np.zeros(5, np.uint8))[:-1])
    with pytest.raises(UserError, match=r"expected 5 bytes for shape \(5,\), got 4"):
        read_idx(path)
    path.write_bytes(b"\x00\x00\x0d\x01")
    with pytest.raises(UserError, match=r"expected an idx file of unsigned bytes"):
        read_idx(path)
    path.write_bytes(b"\x00\x00\x08\x03\x00")
    with pytest.raises(UserError, match=r"header is cut off"):
        read_idx(path)
    packed = tmp_path / "x.gz"
    packed.write_bytes(gzip.compress(idx_bytes(np.zeros(500, np.uint8)))[:-12])
    with pytest.raises(UserError, match=r"x.gz: cannot be read"):
        read_idx(packed)
    with pytest.raises(UserError, match=r"no Fashion-MNIST files.*apt install"):
        read_fashion_idx(tmp_path, "train")


def test_pack_is_what_it_says():
    arrays = pack.load_pack()
    assert pack.load_pack() is arrays  # once per process
    for split, per_class in [("train", 1500), ("probe", 100), ("test", 1000)]:
        source = source_of({"dataset": "fashion_pack"}, split)
        assert source.images.shape == (10 * per_class, 28, 28)
        assert np.bincount(source.targets).tolist() == [per_class] * 10
    used = np.concatenate([arrays["train_source_index"], arrays["probe_source_index"]])
    assert len(np.unique(used)) == 16000  # the probe images are not in the pool
    mean, std = arrays["train_images"].mean() / 255, arrays["train_images"].std() / 255
    record = source_of({"dataset": "fashion_pack"}).record
    assert abs(mean - record.mean[0]) < 2e-3
    assert abs(std - record.std[0]) < 2e-3
    assert source.class_names[9] == "Ankle boot"
    assert pack.PACK_PATH.stat().st_size < 12_000_000
    assert "Zalando SE" in pack.PACK_PATH.with_name("fashion_pack.LICENSE.txt").read_text()


def test_pack_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match=r"read-only"):
        pack.load_pack()["train_images"][0] = 0


def test_damaged_pack_names_both_hashes_and_the_way_out(tmp_path):
    path = tmp_path / "fashion_pack.npz"
    shutil.copy(pack.PACK_PATH, path)
    with open(path, "r+b") as f:
        f.seek(5000)
        f.write(b"\x00\x01\x02\x03")
    with pytest.raises(UserError, match=r"damaged") as error:
        pack.load_pack(path)
    assert f"expected sha256 {pack.PACK_SHA256}, found {sha256(path)}" in str(error.value)
    assert "scripts/packs/fashion.py" in str(error.value)
    with pytest.raises(UserError, match=r"data pack is missing"):
        pack.load_pack(tmp_path / "absent.npz")


def test_pack_bytes_do_not_hold_the_time():
    with zipfile.ZipFile(pack.PACK_PATH) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.skipif(
    not os.path.isdir(sources_named.DEBIAN_FASHION), reason="no dataset-fashion-mnist here"
)
def test_script_makes_the_pack_that_is_shipped(tmp_path):
    path = ROOT / "scripts/packs/fashion.py"
    spec = importlib.util.spec_from_file_location("fashion", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.collect(Path(sources_named.DEBIAN_FASHION))
    shipped = pack.load_pack()
    assert made.keys() == shipped.keys()
    for name, array in made.items():
        assert array.dtype == shipped[name].dtype
        assert (array == shipped[name]).all(), name
    small = {"train_labels": made["train_labels"]}
    script.write_npz(tmp_path / "a.npz", small)
    script.write_npz(tmp_path / "b.npz", small)
    assert sha256(tmp_path / "a.npz") == sha256(tmp_path / "b.npz")
