# SPDX-License-Identifier: MIT
"""Engines turn positions into views: ``workers`` image by image, ``batched`` a batch at a time.

Both give solo-learn's batch ``[indexes (B,), [views V x (B,3,S,S)], targets (B,)]`` with the same
indexes in the same order, and both can be resumed inside an epoch.

Legend: N training images, B batch of one rank, V views, S crop size.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ltplugins.data.augmentations import AugmentationBlock, parse_augmentations
from ltplugins.data.batched import BatchedViews
from ltplugins.data.config import DALI_MESSAGE
from ltplugins.data.loader import Loader, WorkerPool
from ltplugins.data.samplers import EpochSampler
from ltplugins.data.seeding import mix_seed
from ltplugins.data.source import Source
from ltplugins.data.transforms import ViewTransform
from ltplugins.data.view_dataset import ViewDataset
from ltplugins.errors import UserError, unknown

ENGINES = ("batched", "workers")
Batch = list[Any]


class RawBatch(NamedTuple):
    """A batch before its augmentation: what crosses to the training device.

    Attributes:
        indexes: Int[B].
        images: uint8 [B, C, H, W], or V tensors uint8 [B, 3, S, S] that are cropped already.
        targets: Int[B].
        seed: of the batch's generator; a plain int, so that reading it never waits for a device.
    """

    indexes: Tensor
    images: Tensor | list[Tensor]
    targets: Tensor
    seed: int


class WorkersLoader(Loader):
    """DataLoader processes with torchvision on PIL images."""

    def __init__(self, *args: Any, num_workers: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool = WorkerPool(self.dataset, num_workers)

    def _produce(self, epoch: int, start: int) -> Iterator[Batch]:
        for batch in self._pool.run(self, epoch, start):
            yield [batch.indexes, batch.views, batch.targets]


class BatchedLoader(Loader):
    """Slices (in memory) or crops (files, in workers), then augments the whole batch at once.

    Args:
        views: the batch transform.
        raw: yield :class:`RawBatch` for :meth:`finish` on the training device; else finish on CPU.
        num_workers: for files; arrays are sliced in this process.
    """

    def __init__(
        self, *args: Any, views: BatchedViews, raw: bool, num_workers: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.views, self.raw = views, raw
        in_memory = self.dataset.source.images is not None
        self._pool = None if in_memory else WorkerPool(self.dataset, num_workers)

    def finish(self, batch: RawBatch, device: torch.device | str | None = None) -> Batch:
        """Views of a raw batch, made where its images are, or on ``device``."""
        images = batch.images
        if device is not None:
            images = (
                [view.to(device, non_blocking=True) for view in images]
                if isinstance(images, list)
                else images.to(device, non_blocking=True)
            )
        generator = torch.Generator().manual_seed(batch.seed)
        return [batch.indexes, self.views(images, generator), batch.targets]

    def _produce(self, epoch: int, start: int) -> Iterator[Batch | RawBatch]:
        make = self._sliced if self._pool is None else self._cropped
        for batch in make(epoch, start):
            yield batch if self.raw else self.finish(batch)

    def _sliced(self, epoch: int, start: int) -> Iterator[RawBatch]:
        source = self.dataset.source
        assert source.images is not None
        positions = self.sampler.positions()
        for number in range(start, len(self)):
            chosen = self.batch_positions(number, positions)
            images = torch.from_numpy(source.images[self.dataset.indices[chosen]])
            images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
            if torch.cuda.is_available():
                images = images.pin_memory()
            targets = torch.from_numpy(self.dataset.targets[chosen])
            yield RawBatch(torch.from_numpy(chosen), images, targets, self._seed(epoch, number))

    def _cropped(self, epoch: int, start: int) -> Iterator[RawBatch]:
        assert self._pool is not None
        for number, batch in enumerate(self._pool.run(self, epoch, start), start=start):
            yield RawBatch(batch.indexes, batch.views, batch.targets, self._seed(epoch, number))

    def _seed(self, epoch: int, number: int) -> int:
        return mix_seed(self.dataset.seed, epoch, number, self.sampler.rank)


def build_loader(
    source: Source,
    split_indices: np.ndarray,
    sampler: EpochSampler,
    blocks: Sequence[AugmentationBlock | Any],
    *,
    engine: str = "workers",
    batch_size: int,
    num_workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = True,
    on_corrupt: str = "fail",
    raw: bool = False,
) -> Loader:
    """Build the training loader of one rank.

    Args:
        source: of all images.
        split_indices: Int[N], the training subset; true indexes are positions in it.
        sampler: over the subset, of the same rank and world size.
        blocks: the ``augmentations`` list.
        engine: ``workers`` or ``batched``.
        batch_size: B, of one rank.
        num_workers: decoding processes; 0 = in this process.
        seed: of the run.
        rank, world_size: of this process.
        drop_last: drop the last, short batch; without it the ranks' last batches may differ.
        on_corrupt: ``fail`` or ``skip``.
        raw: ``batched`` only: yield batches before their augmentation.

    Raises:
        UserError: an unknown engine, fewer images than the batch, a bad augmentation.
    """
    if engine == "dali":
        raise UserError(DALI_MESSAGE)
    if engine not in ENGINES:
        raise unknown("data.engine", engine, ENGINES)
    if (sampler.rank, sampler.world_size) != (rank, world_size):
        raise ValueError(
            f"sampler is for rank {sampler.rank} of {sampler.world_size}, "
            f"the loader for rank {rank} of {world_size}"
        )
    blocks = parse_augmentations(blocks)
    transform = ViewTransform(blocks, source.record, crop_only=engine == "batched")
    dataset = ViewDataset(source, split_indices, transform, seed=seed, on_corrupt=on_corrupt)
    common: dict[str, Any] = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "num_workers": num_workers,
    }
    if engine == "workers":
        return WorkersLoader(dataset, sampler, **common)
    views = BatchedViews(blocks, source.record)
    return BatchedLoader(dataset, sampler, views=views, raw=raw, **common)
