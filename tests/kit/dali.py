# SPDX-License-Identifier: MIT
"""Marks of tests that need NVIDIA DALI, and small JPEGs for them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HAS_DALI = bool(importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"))
DALI_MARKS = (
    pytest.mark.dali,
    pytest.mark.skipif(not HAS_DALI, reason="NVIDIA DALI is not installed"),
)
DALI = pytest.param("dali", marks=DALI_MARKS)


def smooth_image(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A random picture whose neighbouring pixels are alike, as a photograph's."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def write_jpegs(root: Path, counts: tuple[int, ...] = (7, 5, 3), seed: int = 0) -> Path:
    """An image folder of JPEGs of different shapes, one sub-folder a class."""
    rng = np.random.default_rng(seed)
    for label, count in enumerate(counts):
        (root / f"class{label}").mkdir(parents=True)
        for i in range(count):
            image = smooth_image(rng, 24 + 3 * i, 20 + 5 * label)
            image.save(root / f"class{label}/{i:02d}.jpg", quality=90)
    return root
