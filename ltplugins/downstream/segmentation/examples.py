# SPDX-License-Identifier: MIT
"""Test images to look at: which ones, and the file that keeps them with their predictions.

Legend: H, W of an image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ltplugins.core.arrays import open_archive
from ltplugins.core.files import atomic_path
from ltplugins.downstream.segmentation.pairs import Pairs, mask_of


class Example(NamedTuple):
    """An image uint8 [H W 3], its mask and what was predicted, uint8 [H W] each."""

    image: np.ndarray
    truth: np.ndarray
    found: np.ndarray


def choose_examples(pairs: Pairs, rare: Sequence[int], count: int) -> list[int]:
    """Images to look at: one with most pixels of each rare class, then evenly through the part.

    Args:
        rare: class ids, those that matter most first.
        count: at most so many.
    """
    if count == 0:
        return []
    best: dict[int, tuple[int, int]] = {}
    for i in range(len(pairs)):
        pixels = np.bincount(mask_of(pairs, i).ravel(), minlength=256)
        for label in rare:
            if pixels[label] > best.get(label, (0, 0))[0]:
                best[label] = (int(pixels[label]), i)
    chosen = [best[label][1] for label in rare if label in best]
    even = np.linspace(0, len(pairs) - 1, count + 2)[1:-1].round().astype(int).tolist()
    return list(dict.fromkeys([*chosen, *even]))[:count]


def write_examples(examples: Sequence[Example], path: Path) -> None:
    """Write them as ``.npz``, so that pictures can be drawn again without the network."""
    arrays: dict[str, Any] = {}
    for i, example in enumerate(examples):
        arrays |= {f"{name}_{i}": value for name, value in example._asdict().items()}
    with atomic_path(path) as tmp:
        np.savez_compressed(tmp, **arrays)


def read_examples(path: Path) -> list[Example]:
    """What :func:`write_examples` has written.

    Raises:
        UserError: the file is damaged.
    """
    with open_archive(path) as file:
        count = len(file.files) // len(Example._fields)
        return [Example(*(file[f"{name}_{i}"] for name in Example._fields)) for i in range(count)]
