# SPDX-License-Identifier: MIT
"""Tiny sets of images with masks, in the field's own layouts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def scene(seed: int, labels: Sequence[int] = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """An image of three stripes whose colours tell the class, and its mask of these labels."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(8, SIDE - 8, 2))
    places = np.searchsorted(ends, np.arange(SIDE))[None].repeat(SIDE, 0)
    places = places if seed % 2 else places.T
    noise = rng.integers(0, 40, (SIDE, SIDE, 3))
    return (COLOURS[places] + noise).clip(0, 255).astype(np.uint8), np.uint8(labels)[places]


def write_masks(root: Path, train: int = 8, test: int = 4) -> Path:
    """Format ``folder``: three classes, a border of no class in the first training mask."""
    for part, count, start in (("train", train, 0), ("test", test, 100)):
        for i in range(count):
            image, mask = scene(start + i)
            if part == "train" and i == 0:
                mask[:4] = 255
            save(image, root / part / "images" / f"{i}.png")
            save(mask, root / part / "masks" / f"{i}.png")
    return root


def write_voc(root: Path) -> Path:
    """Two images a part: background, cat (8) and border (255)."""
    lists = {"train": ["2007_000001", "2007_000002"], "val": ["2007_000003"]}
    for part, names in lists.items():
        for name in names:
            image, mask = scene(int(name[-1]), (0, 8, 255))
            save(image, root / "JPEGImages" / f"{name}.jpg")
            palette = Image.fromarray(mask, mode="P")
            palette.putpalette(np.arange(768, dtype=np.uint8).tobytes())
            path = root / "SegmentationClass" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            palette.save(path)
        file = root / "ImageSets" / "Segmentation" / f"{part}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(names) + "\n")
    return root


def write_cityscapes(root: Path) -> Path:
    """A city a part; labelIds: road (7), bicycle (33), unlabelled (0)."""
    for split, city in (("train", "aachen"), ("val", "ulm")):
        for i in range(2):
            image, mask = scene(i, (7, 33, 0))
            stem = f"{city}_00000{i}_000019"
            save(image, root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
            save(mask, root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png")
            save(mask, root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png")
    return root


def write_ade20k(root: Path) -> Path:
    """Labels 1 and 150, and 0, which is none."""
    for split, prefix in (("training", "train"), ("validation", "val")):
        for i in range(2):
            image, mask = scene(i, (0, 1, 150))
            save(image, root / "images" / split / f"ADE_{prefix}_0000000{i}.jpg")
            save(mask, root / "annotations" / split / f"ADE_{prefix}_0000000{i}.png")
    return root
