# SPDX-License-Identifier: MIT
"""The ``workers`` engine: torchvision on PIL images, image by image, in worker processes."""

from collections.abc import Iterator
from typing import Any

from ltplugins.data.engines.loader import Loader, WorkerPool


class WorkersLoader(Loader):
    """The ``workers`` engine: torchvision on PIL images, in worker processes."""

    def __init__(self, *args: Any, num_workers: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool = WorkerPool(self.dataset, num_workers)

    def _produce(self, epoch: int, start: int) -> Iterator[list[Any]]:
        for batch in self._pool.run(self, epoch, start):
            yield [batch.indexes, batch.views, batch.targets]
