# SPDX-License-Identifier: MIT
"""The idx format of MNIST-like sets: big-endian header, then uint8 values, plain or gzipped."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from ltplugins.core.errors import UserError

_STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: str | Path) -> np.ndarray:
    """Read one uint8 idx file.

    Raises:
        UserError: not an idx file of bytes, or shorter or longer than its header says.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}. Get the file again.") from None
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise UserError(f"{path}: expected an idx file of unsigned bytes, got {data[:4]!r}.")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise UserError(f"{path}: the idx header is cut off. Get the file again.")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    expected = int(np.prod(shape))
    if len(data) - start != expected:
        raise UserError(
            f"{path}: expected {expected} bytes for shape {shape}, got {len(data) - start}. "
            f"Get the file again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def find_fashion_idx(folder: str | Path, part: str) -> tuple[Path, Path] | None:
    """Find the image and label file of ``part`` (train or test) under ``folder``, or None.

    Looks in the folder itself (the Debian package's layout) and in torchvision's
    ``FashionMNIST/raw``.
    """
    for base in (Path(folder), Path(folder) / "FashionMNIST" / "raw"):
        for suffix in ("", ".gz"):
            images, labels = (base / f"{stem}{suffix}" for stem in _STEMS[part])
            if images.is_file() and labels.is_file():
                return images, labels
    return None


def read_fashion_idx(folder: str | Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images uint8 [N, H, W] and labels int64 [N] of ``part``.

    Raises:
        UserError: the files are absent, damaged, or do not belong together.
    """
    found = find_fashion_idx(folder, part)
    if found is None:
        raise UserError(
            f"{folder}: no Fashion-MNIST files; expected {_STEMS[part][0]} and {_STEMS[part][1]}, "
            f"plain or .gz. "
            f"On Debian, apt install dataset-fashion-mnist puts them into "
            f"/usr/share/datasets/fashion-mnist."
        )
    images, labels = read_idx(found[0]), read_idx(found[1])
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise UserError(
            f"{found[0]} and {found[1].name}: expected N images and N labels, got shapes "
            f"{images.shape} and {labels.shape}."
        )
    return images, labels.astype(np.int64)
