# SPDX-License-Identifier: MIT
"""A subset as a file: a list of indices into a source."""

import re
from pathlib import Path

import numpy as np

from ltplugins.core.arrays import read_array
from ltplugins.core.errors import UserError


def read_index_file(file: str | None, size: int) -> np.ndarray:
    """Read indices Int[N] into a source of ``size`` images from ``file``, one a line or ``.npy``.

    Raises:
        UserError: absent, not integers, outside the source, repeated, or empty.
    """
    if not file:
        raise UserError("data.imbalance.path is missing: kind 'file' needs an index list.")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"data.imbalance.path: no such file: {path}.")
    if path.suffix == ".npy":
        indices = read_array(path)
        if indices.ndim != 1 or indices.dtype.kind not in "iu":
            raise UserError(
                f"{path}: expected a one-dimensional integer array, "
                f"got {indices.dtype} of shape {indices.shape}."
            )
        indices = indices.astype(np.int64)
    else:
        indices = _parse_lines(path)
    outside = indices[(indices < 0) | (indices >= size)]
    if len(outside):
        raise UserError(f"{path}: index {outside[0]} is outside the source of {size} images.")
    values, seen = np.unique(indices, return_counts=True)
    if (seen > 1).any():
        raise UserError(f"{path}: index {values[seen > 1][0]} appears more than once.")
    if len(indices) == 0:
        raise UserError(f"{path}: the index list is empty.")
    return indices


def _parse_lines(path: Path) -> np.ndarray:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: expected text with one index a line, got other bytes. Give an array of "
            f"NumPy's a name that ends with .npy."
        ) from None
    indices = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", line):
            raise UserError(
                f"{path}, line {number}: expected one index, got {line.strip()[:80]!r}."
            )
        indices.append(int(line))
    return np.asarray(indices, dtype=np.int64)
