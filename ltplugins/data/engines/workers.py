# SPDX-License-Identifier: MIT
"""The ``workers`` engine: torchvision on PIL images, image by image, in worker processes."""

from collections.abc import Iterator
from typing import Any

import torch

from ltplugins.data.augment.pil import ViewTransform
from ltplugins.data.engines.draws import ViewDataset
from ltplugins.data.engines.loader import Loader, WorkerPool
from ltplugins.data.samplers.base import Shard
from ltplugins.data.training_set import TrainingSet


class WorkersLoader(Loader):
    """Loader of the ``workers`` engine.

    Args:
        num_workers: decoding processes; 0 = in this process.
        seconds: that a batch of theirs is waited for.
    """

    def __init__(self, *args: Any, num_workers: int, seconds: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool = WorkerPool(self.dataset, num_workers, seconds)

    def _produce(self, epoch: int, start: int) -> Iterator[list[Any]]:
        for batch in self._pool.run(self, epoch, start):
            yield [batch.indexes, batch.views, batch.targets]


def build_workers(training: TrainingSet, shard: Shard, device: torch.device) -> WorkersLoader:
    """Build the loader of one process; its views are made on the CPU, whatever ``device`` is."""
    transform = ViewTransform(training.blocks, training.record, boost=training.boost)
    return WorkersLoader(
        ViewDataset(training, transform, seed=shard.seed),
        training.sampler(shard),
        batch_size=training.batch_size,
        drop_last=training.drop_last,
        num_workers=training.cfg.num_workers,
        seconds=training.cfg.worker_timeout,
    )
