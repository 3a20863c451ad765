# SPDX-License-Identifier: MIT
"""The ``batched`` engine: whole batches are augmented at once, in workers or on the device."""

from collections.abc import Iterator
from typing import Any

import torch

from ltplugins.data.augment.batch.views import BatchedViews
from ltplugins.data.augment.pil import ViewTransform
from ltplugins.data.engines.draws import BatchDataset, RawBatch, batch_generator
from ltplugins.data.engines.loader import Loader, WorkerPool
from ltplugins.data.samplers.base import Shard
from ltplugins.data.training_set import TrainingSet


class BatchedLoader(Loader):
    """The ``batched`` engine on the CPU: whole batches are augmented in the worker processes.

    A worker's kernels are single-threaded, so several batches are made side by side; small kernels
    that each spread over all cores are slower than that, and fight with the training step.

    Args:
        views: the batch transform.
        num_workers: processes; 0 = in this process.
        seconds: that a batch of theirs is waited for.
    """

    def __init__(
        self, *args: Any, views: BatchedViews, num_workers: int, seconds: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.views = views
        self._pool = WorkerPool(self.dataset, num_workers, seconds)

    def _produce(self, epoch: int, start: int) -> Iterator[list[Any]]:
        for batch in self._pool.run(self, epoch, start):
            yield [batch.indexes, self.views.normalise(batch.views), batch.targets]


class RawLoader(Loader):
    """The ``batched`` engine for another device: raw batches, and :meth:`finish` for them there.

    Args:
        views: the batch transform.
        num_workers: for files; arrays are sliced in this process.
        seconds: that a batch of theirs is waited for.
    """

    def __init__(
        self, *args: Any, views: BatchedViews, num_workers: int, seconds: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.views = views
        in_memory = self.dataset.source.images is not None
        self._pool = WorkerPool(self.dataset, 0 if in_memory else num_workers, seconds)

    def finish(self, batch: RawBatch, device: torch.device | str | None = None) -> list[Any]:
        """Make the views of a raw batch, where its images are or on ``device``."""
        if device is not None:
            images = batch.images
            moved = (
                [view.to(device, non_blocking=True) for view in images]
                if isinstance(images, list)
                else images.to(device, non_blocking=True)
            )
            batch = batch._replace(images=moved)
        views = self.views(batch.images, batch_generator(batch), batch.strength)
        return [batch.indexes, views, batch.targets]

    def _produce(self, epoch: int, start: int) -> Iterator[RawBatch]:
        yield from self._pool.run(self, epoch, start)


def build_batched(training: TrainingSet, shard: Shard, device: torch.device) -> Loader:
    """Build the loader of one process; for another ``device`` than a CPU it gives raw batches."""
    crops = ViewTransform(training.blocks, training.record, crop_only=True)
    views = BatchedViews(training.blocks, training.record, training.boost)
    on_cpu = device.type == "cpu"
    loader = BatchedLoader if on_cpu else RawLoader
    return loader(
        BatchDataset(training, crops, seed=shard.seed, views=views if on_cpu else None),
        training.sampler(shard),
        batch_size=training.batch_size,
        drop_last=training.drop_last,
        views=views,
        num_workers=training.cfg.num_workers,
        seconds=training.cfg.worker_timeout,
    )
