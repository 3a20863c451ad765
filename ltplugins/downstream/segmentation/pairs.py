# SPDX-License-Identifier: MIT
"""Images with masks, in memory or in files, and what is known of all of a part's masks.

Legend: N images, H, W of one of them, C classes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.sources.pictures import (
    MAX_PIXELS,
    Damage,
    File,
    decode,
    first_damage,
    opened,
    upright_size,
)
from ltplugins.downstream.segmentation.options import IGNORE


class Pairs(Protocol):
    """The images of one part, each with its mask."""

    def __len__(self) -> int:
        """N."""

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One: uint8 [H W 3], and uint8 [H W] of classes or IGNORE."""

    def fingerprint(self) -> str:
        """A hash of what lies there."""


class ArrayPairs:
    """Images [N H W 3] and masks [N H W] in memory, both uint8."""

    def __init__(self, images: np.ndarray, masks: np.ndarray, name: str) -> None:
        self.images, self.masks, self.name = images, masks, name

    def __len__(self) -> int:
        return len(self.images)

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Pairs`."""
        return self.images[index], self.masks[index]

    def fingerprint(self) -> str:
        """Of the masks and a name: decoders of JPEG differ in the last bit of an image."""
        digest = hashlib.sha256(f"{self.name} {self.masks.shape}".encode())
        digest.update(np.ascontiguousarray(self.masks).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class FilePairs:
    """Images and masks in files.

    Attributes:
        images, masks: their paths, in one order.
        table: uint8 [256], the class of each label, or IGNORE.
        allowed: Bool[256], the labels that may stand in a mask.
        max_pixels: a file of more is not decoded.
    """

    images: Sequence[Path]
    masks: Sequence[Path]
    table: np.ndarray
    allowed: np.ndarray
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.images)

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Pairs`.

        Raises:
            UserError: a file that cannot be decoded, or sizes that differ.
        """
        with _opened(self.images[index], self.max_pixels) as image:
            pixels = decode(image)
        mask = self.table[self.labels(index)]
        if pixels.shape[:2] != mask.shape:  # a file has changed since all were looked at
            raise _other_size(self.images[index], self.masks[index], pixels.shape, mask.shape)
        return pixels, mask

    def labels(self, index: int) -> np.ndarray:
        """The labels of a mask as the file has them, uint8 [H W].

        Raises:
            UserError: a file that cannot be decoded, or is a colour picture.
        """
        path = self.masks[index]
        with _opened(path, self.max_pixels) as image:
            mode, labels = image.mode, np.asarray(image)
        if mode not in ("L", "P", "I", "I;16", "1"):
            raise UserError(
                f"{path}: expected a mask of one label a pixel (grey or palette), got a picture of "
                f"mode {mode}. Write the labels as grey values."
            )
        if labels.max(initial=0) > IGNORE or labels.min(initial=0) < 0:
            strange = labels.max() if labels.max() > IGNORE else labels.min()
            raise UserError(
                f"{path}: expected labels from 0 to {IGNORE}, got {strange}. Number the classes "
                f"from 0 and write them in 8 bits."
            )
        return labels.astype(np.uint8)

    def fingerprint(self) -> str:
        """Of names and sizes of the files: reading all of a large set takes too long."""
        digest = hashlib.sha256()
        for path in (*self.images, *self.masks):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()

    def require_sizes(self) -> None:
        """Compare the sizes that the files' heads say; decode every image once.

        Raises:
            UserError: a mask of another size than its image, an image that is damaged.
        """
        for image, mask in zip(self.images, self.masks, strict=True):
            sizes = []
            for path in (image, mask):
                with _opened(path, self.max_pixels) as file:
                    sizes.append(upright_size(file)[::-1])
            if sizes[0] != sizes[1]:
                raise _other_size(image, mask, *sizes)

        def look(path: File) -> None:
            with opened(path, self.max_pixels) as file:
                decode(file)

        damage = first_damage(self.images, look)
        if damage is not None:
            raise UserError(f"{damage[0]} cannot be decoded ({damage[1]}).")


@contextmanager
def _opened(path: Path, limit: int) -> Iterator[Image.Image]:
    try:
        with opened(path, limit) as image:
            yield image
    except Damage as error:
        raise UserError(f"{path} cannot be decoded ({error}).") from None


def _other_size(image: Path, mask: Path, size: Sequence[int], other: Sequence[int]) -> UserError:
    """The refusal of a mask; sizes are height and width."""
    return UserError(
        f"{mask}: expected a mask of {size[1]} x {size[0]} pixels, as its image {image.name} has, "
        f"got {other[1]} x {other[0]}. Resize it to its image's size, without interpolation."
    )


@dataclass(frozen=True)
class Counts:
    """How often classes are seen in a part's masks.

    Attributes:
        pixels: Int[C], pixels of each class.
        images: Int[C], images in which it is seen.
        ignored: pixels of no class.
    """

    pixels: np.ndarray
    images: np.ndarray
    ignored: int


def count(pairs: Pairs, num_classes: int) -> Counts:
    """Count a part's pixels and images by class; this reads all masks."""
    found = np.stack(
        [np.bincount(mask_of(pairs, i).ravel(), minlength=256) for i in range(len(pairs))]
    )
    inside = found[:, :num_classes]
    return Counts(inside.sum(0), (inside > 0).sum(0), int(found[:, IGNORE].sum()))


def require_labels(pairs: FilePairs, part: str) -> None:
    """Refuse a mask with a label that stands for nothing; this reads all masks.

    Raises:
        UserError: the file, the label, and those that are known.
    """
    for i in range(len(pairs)):
        strange = np.flatnonzero(
            np.bincount(pairs.labels(i).ravel(), minlength=256) * ~pairs.allowed
        )
        if len(strange):
            known = np.flatnonzero(pairs.allowed)
            ends = f"{known[0]} to {known[known < IGNORE].max()}"
            extra = f", or {IGNORE} for no class" if pairs.allowed[IGNORE] else ""
            raise UserError(
                f"{pairs.masks[i]} ({part}): expected labels from {ends}{extra}, got {strange[0]}. "
                f"Correct the mask, or set data.num_classes or data.ignore."
            )


def mask_of(pairs: Pairs, index: int) -> np.ndarray:
    """The mask of an image alone, uint8 [H W]."""
    if isinstance(pairs, FilePairs):
        return pairs.table[pairs.labels(index)]  # without decoding the image
    return pairs.pair(index)[1]
