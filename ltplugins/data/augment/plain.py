# SPDX-License-Identifier: MIT
"""Images under the deterministic transform in a stream: for features of sets of any size.

Legend: B batch, S crop size.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ltplugins.core.errors import UserError
from ltplugins.data.augment.deterministic import EvalTransform, eval_resize
from ltplugins.data.augment.schema import AugmentationBlock, normalisation
from ltplugins.data.patience import PatientLoader
from ltplugins.data.sources.base import CorruptImage, Source, channels_first
from ltplugins.data.sources.records import DataRecord

_SKIP = ", or set data.on_corrupt: skip to go on with the others"


def eval_transform(
    record: DataRecord,
    crop_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> EvalTransform:
    """Build the deterministic transform of a data set.

    Args:
        record: gives size and statistics where the other arguments are None.
        crop_size: pixels a side.
        mean: per channel, in [0, 1].
        std: per channel, in [0, 1].
    """
    return EvalTransform(crop_size or record.image_size, mean or record.mean, std or record.std)


class EvalDataset(Dataset[tuple[Tensor, int]]):
    """A source under the deterministic transform: ``(float [3, S, S], target)``."""

    def __init__(self, source: Source, transform: Any) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        try:
            return self.transform(self.source.load(i)), int(self.source.targets[i])
        except CorruptImage as error:
            # Never skipped: a number without one of its images is another number.
            raise UserError(f"corrupt test image: {error.path} ({error.reason}).") from None


class _Images(Dataset[tuple[Tensor, str]]):
    """Image and "", or a black one and what is wrong with its file."""

    def __init__(self, source: Source, indices: np.ndarray, transform: Any, size: int) -> None:
        self.source, self.indices = source, indices
        self.transform, self.size = transform, size

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Tensor, str]:
        try:
            return self.transform(self.source.load(int(self.indices[i]))), ""
        except CorruptImage as error:
            return torch.zeros(3, self.size, self.size), f"{error.path} ({error.reason})"


def stream_images(
    source: Source,
    indices: np.ndarray,
    block: AugmentationBlock,
    *,
    batch_size: int,
    num_workers: int = 0,
    on_corrupt: str = "fail",
    way_out: str = _SKIP,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the images at ``indices``, in order, with no more than a batch at a time in memory.

    It draws from no global generator.

    Args:
        source: of the images; ``block`` gives size and statistics where the record's are not used.
        on_corrupt: ``fail``, or ``skip`` to give a black image that is marked.
        way_out: what else a user may do about a corrupt image.

    Yields:
        Float[B 3 S S] and Bool[B], False where the image is damaged.

    Raises:
        UserError: a corrupt image under ``fail``.
    """
    size, images = block.crop_size, source.images
    mean, std = normalisation(block, source.record)
    if images is not None and images.shape[1:3] == (size, size) and eval_resize(size) == size:
        # Nothing to resize: a slice of the array, many times faster than image by image.
        shift, scale = (torch.tensor(list(v)).view(1, 3, 1, 1) for v in (mean, std))
        for start in range(0, len(indices), batch_size):
            chosen = channels_first(images[np.asarray(indices[start : start + batch_size])])
            yield (chosen / 255 - shift) / scale, torch.ones(len(chosen), dtype=torch.bool)
        return
    transform = eval_transform(source.record, size, mean, std)
    yield from stream_through(
        source,
        indices,
        transform,
        batch_size=batch_size,
        num_workers=num_workers,
        on_corrupt=on_corrupt,
        way_out=way_out,
    )


def labelled(
    stream: Iterable[tuple[Tensor, Tensor]], targets: np.ndarray
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give a stream's images with their labels, without those that are damaged.

    Args:
        stream: as of :func:`stream_images`.
        targets: Int[N], of all images of the stream, in its order.

    Yields:
        Float[B 3 S S] and Int[B], B of 1 or more.
    """
    start = 0
    for images, fine in stream:
        labels = torch.from_numpy(targets[start : start + len(images)])
        start += len(images)
        if fine.all():
            yield images, labels
        elif fine.any():
            yield images[fine], labels[fine]


def stream_through(
    source: Source,
    indices: np.ndarray,
    transform: EvalTransform,
    *,
    batch_size: int,
    num_workers: int = 0,
    on_corrupt: str = "fail",
    way_out: str = _SKIP,
) -> Iterator[tuple[Tensor, Tensor]]:
    """:func:`stream_images` image by image, through any deterministic transform."""
    loader = PatientLoader(
        _Images(source, np.asarray(indices), transform, transform.size),
        batch_size=batch_size,
        num_workers=num_workers,
        generator=torch.Generator(),
    )
    for batch, damage in loader:
        found = [text for text in damage if text]
        if found and on_corrupt == "fail":
            raise UserError(f"corrupt image: {found[0]}. Replace or remove the file{way_out}.")
        yield batch, torch.tensor([not text for text in damage])
