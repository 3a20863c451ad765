# SPDX-License-Identifier: MIT
"""A checkpoint knows its own bytes: whatever is changed in it is noticed before it is used."""

import errno
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import read_checkpoint
from ltplugins.runs.seal import broken_seal, save_sealed

CONTENT = {"state_dict": {"w": torch.arange(5000.0)}, "epoch": 3, "lr": 0.1}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    save_sealed(CONTENT, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_sealed_file_opens_everywhere(sealed: Path) -> None:
    assert broken_seal(sealed) is None
    assert zipfile.ZipFile(sealed).testzip() is None
    for content in (
        torch.load(sealed, weights_only=True),
        torch.load(sealed, weights_only=True, mmap=True),
        read_checkpoint(sealed),
    ):
        assert torch.equal(content["state_dict"]["w"], CONTENT["state_dict"]["w"])
        assert content["lr"] == 0.1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.99])
def test_one_flipped_bit_is_noticed(share: float, sealed: Path) -> None:
    data = bytearray(sealed.read_bytes())
    data[int(share * len(data))] ^= 1
    sealed.write_bytes(data)
    with pytest.raises(UserError, match=r"last\.ckpt is damaged: .*sha256"):
        read_checkpoint(sealed)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_that_was_cut_is_refused_in_a_line(share: float, sealed: Path) -> None:
    sealed.write_bytes(sealed.read_bytes()[: int(share * sealed.stat().st_size)])
    with pytest.raises(UserError, match=r"last\.ckpt") as error:
        read_checkpoint(sealed)
    assert "\n" not in str(error.value)


def test_without_a_seal_the_archives_own_sums_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "solo.ckpt"
    torch.save(CONTENT, path)
    assert broken_seal(path) is None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["epoch"] == 3  # torch itself does not see it
    with pytest.raises(UserError, match=r"solo\.ckpt is damaged: .*CRC-32"):
        read_checkpoint(path)
    torch.save(CONTENT, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path)["epoch"] == 3


def test_the_way_out_lies_beside(sealed: Path) -> None:
    for name in ("epoch=9.ckpt", "epoch=10.ckpt", "epoch=x.ckpt"):
        sealed.with_name(name).touch()
    sealed.write_bytes(b"")
    with pytest.raises(UserError, match=r"Beside it lies epoch=10\.ckpt"):
        read_checkpoint(sealed)
    sealed.with_name("previous.ckpt").touch()
    with pytest.raises(UserError, match=r"Beside it lies previous\.ckpt"):
        read_checkpoint(sealed)


@pytest.mark.parametrize("room", [0, 100, 10_000])
def test_a_full_disk_leaves_the_file_that_was_there(
    room: int, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sealed.read_bytes()

    class Disk:
        left = room

        def update(self, data: bytes) -> None:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ltplugins.runs.seal.hashlib", SimpleNamespace(sha256=Disk))
    with pytest.raises(OSError, match="No space left") as error:
        save_sealed(CONTENT, sealed)
    assert error.value.filename == str(sealed)
    assert sealed.read_bytes() == before
    assert [p.name for p in sealed.parent.iterdir()] == ["last.ckpt"]
