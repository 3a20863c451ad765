# SPDX-License-Identifier: MIT
"""What a source is: an indexable set of images and labels, in memory or as files.

Legend: N images, H height, W width, C classes or channels, B batch.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.data.sources.pictures import MAX_PIXELS, Damage, decode, opened, shown
from ltplugins.data.sources.records import DataRecord


class CorruptImage(Exception):
    """An image that cannot be decoded; the loader's policy decides what follows."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = shown(path), reason


class Source:
    """Base of all sources.

    Attributes:
        targets: int64 [N]; -1 = no label.
        num_classes: C.
        class_names: C names.
        record: statistics and native size.
        images: uint8 [N, H, W, 3], or [N, H, W] for greyscale; None when the images are files.
        stand_ins: Int64[N K], rows that say which picture each image is, for a source that knows
            it better than by its pixels; None = its pixels or its file do.
        max_pixels: a file of more is not decoded.
        places: Int64[N K], the places that each image touches, for a source whose images of one
            place look alike or overlap: what is held out of it is whole places; None = none do.
    """

    max_pixels: int = MAX_PIXELS

    def __init__(self, targets: np.ndarray, class_names: Sequence[str], record: DataRecord) -> None:
        self.targets = np.asarray(targets, dtype=np.int64)
        self.class_names = tuple(class_names)
        self.record = record
        self.images: np.ndarray | None = None
        self.stand_ins: np.ndarray | None = None
        self.places: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.targets)

    def load(self, i: int) -> np.ndarray:
        """Load image i, uint8 [H, W, 3].

        Raises:
            CorruptImage: the file cannot be decoded.
        """
        raise NotImplementedError

    def subset(self, indices: np.ndarray) -> "Source":
        """Make the same source with only the images at ``indices``, in that order."""
        raise NotImplementedError


class ArraySource(Source):
    """Images in memory."""

    def __init__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        class_names: Sequence[str],
        record: DataRecord,
    ) -> None:
        super().__init__(targets, class_names, record)
        self.images = images

    def load(self, i: int) -> np.ndarray:
        assert self.images is not None
        image = self.images[i]
        return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image

    def subset(self, indices: np.ndarray) -> "ArraySource":
        assert self.images is not None
        chosen = ArraySource(
            self.images[indices], self.targets[indices], self.class_names, self.record
        )
        chosen.stand_ins = None if self.stand_ins is None else self.stand_ins[indices]
        chosen.places = None if self.places is None else self.places[indices]
        return chosen


class FileSource(Source):
    """Images as files, decoded one at a time."""

    def __init__(
        self,
        paths: Sequence[str],
        targets: np.ndarray,
        class_names: Sequence[str],
        record: DataRecord,
    ) -> None:
        super().__init__(targets, class_names, record)
        self.paths = list(paths)

    def load(self, i: int) -> np.ndarray:
        try:
            with opened(self.paths[i], self.max_pixels) as image:
                return decode(image)
        except Damage as error:
            raise CorruptImage(self.paths[i], str(error)) from error

    def subset(self, indices: np.ndarray) -> "FileSource":
        paths = [self.paths[i] for i in indices]
        chosen = FileSource(paths, self.targets[indices], self.class_names, self.record)
        chosen.max_pixels = self.max_pixels
        return chosen


def channels_first(images: np.ndarray) -> Tensor:
    """Turn a slice of a source's images, uint8 [B, H, W] or [B, H, W, C], into [B, C, H, W]."""
    pattern = "b h w -> b 1 h w" if images.ndim == 3 else "b h w c -> b c h w"
    return rearrange(torch.from_numpy(images), pattern)


# Above it a label is a slip: there would be a list of names, a row of the head, for each.
MOST_CLASSES = 1_000_000


def number_names(num_classes: int) -> tuple[str, ...]:
    """Name classes whose source has no names for them: "0", "1", ..."""
    return tuple(str(c) for c in range(num_classes))


def check_no_empty_class(targets: np.ndarray, num_classes: int, where: str | Path) -> None:
    """Raise a UserError that names the classes without an image."""
    counts = np.bincount(targets[targets >= 0], minlength=num_classes)
    empty = np.where(counts == 0)[0]
    if len(empty):
        listed = ", ".join(str(c) for c in empty[:10]) + (" ..." if len(empty) > 10 else "")
        raise UserError(
            f"{where}: {len(empty)} of {num_classes} classes have no image: {listed}. "
            f"Labels must run from 0 to {num_classes - 1} without a gap."
        )
