# SPDX-License-Identifier: MIT
"""What every engine's loader has: batches of an epoch, a place to go on from, corrupt files.

Legend: N training images, B batch of one rank, W ranks.
"""

import logging
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from ltplugins.data.engines.draws import (
    Draw,
    ViewDataset,
    identity,
    raise_if_message,
)
from ltplugins.data.patience import SECONDS, PatientLoader
from ltplugins.data.samplers.base import EpochSampler, count_batches, require_batch

log = logging.getLogger(__name__)


class Delivered(Protocol):
    """A batch that knows which files were replaced in it, and why."""

    @property
    def corrupt(self) -> list[tuple[str, str]]: ...


class Loader:
    """Base of the engines' loaders: an iterable of batches with a length and a place in it.

    ``iter`` is lazy: the epoch is read at the first batch, because Lightning asks for the iterator
    before it calls ``sampler.set_epoch``.

    Attributes:
        dataset: the training subset, ``len`` = N.
        sampler: decides the positions; ``set_epoch`` on it chooses the epoch.
        corrupt: damaged files met so far and how often each was replaced.
    """

    def __init__(
        self, dataset: ViewDataset, sampler: EpochSampler, *, batch_size: int, drop_last: bool
    ) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.batch_size, self.drop_last = batch_size, drop_last
        self.corrupt: dict[str, int] = {}
        self._pending: tuple[int, int] | None = None
        self._delivered = 0
        self._length = len(self)
        require_batch(sampler, batch_size, drop_last)

    def __len__(self) -> int:
        """Count the batches of an epoch; every rank has as many."""
        sampler = self.sampler
        return count_batches(sampler.total, sampler.world_size, self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        start = self._take_start()
        self._delivered = start
        # Of this epoch: a sampler may have got more to draw by the time the place is asked for.
        self._length = len(self)
        for batch in self._produce(self.sampler.epoch, start):
            self._delivered += 1
            yield batch

    def _produce(self, epoch: int, start: int) -> Iterator[Any]:
        """Give the batches of ``epoch`` from number ``start`` on; nothing before is decoded."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, int]:
        """Give the epoch and how many batches of it were delivered."""
        if self._pending is not None:
            return {"epoch": self._pending[0], "batches": self._pending[1]}
        if self._delivered >= self._length:
            return {"epoch": self.sampler.epoch + 1, "batches": 0}
        return {"epoch": self.sampler.epoch, "batches": self._delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next iteration go on from ``state``.

        A ``set_epoch`` to another epoch before that iteration wins: it starts from the beginning.
        """
        self._pending = (int(state["epoch"]), int(state["batches"]))
        self.sampler.set_epoch(self._pending[0])

    def _take_start(self) -> int:
        pending, self._pending = self._pending, None
        if pending is None or pending[0] != self.sampler.epoch:
            return 0
        return pending[1]

    def count_corrupt(self, batch: Delivered) -> None:
        for path, reason in batch.corrupt:
            if path not in self.corrupt:
                log.warning("corrupt image replaced by another of its batch: %s (%s)", path, reason)
            self.corrupt[path] = self.corrupt.get(path, 0) + 1


class WorkerPool:
    """A DataLoader that is fed with the batches of one epoch after the other."""

    def __init__(self, dataset: ViewDataset, num_workers: int, seconds: int = SECONDS) -> None:
        self._plan = _Plan()
        self._loader = PatientLoader(
            dataset,
            batch_sampler=self._plan,
            num_workers=num_workers,
            seconds=seconds,
            persistent_workers=num_workers > 0,
            collate_fn=identity,
            pin_memory=torch.cuda.is_available(),
            # Its own: the DataLoader would draw a seed from the global generator every epoch.
            generator=torch.Generator(),
        )

    def run(self, loader: Loader, epoch: int, start: int) -> Iterator[Any]:
        """Give the batches of ``epoch`` from ``start`` on, in order.

        Raises:
            UserError: a corrupt image under the policy ``fail``.
        """
        self._plan.batches = epoch_draws(
            loader.sampler, epoch, range(start, len(loader)), loader.batch_size
        )
        for batch in self._loader:
            checked = raise_if_message(batch)
            loader.count_corrupt(checked)
            yield checked


def epoch_draws(
    sampler: EpochSampler, epoch: int, numbers: range, batch_size: int
) -> Iterator[list[Draw]]:
    """Give the draws of the batches ``numbers`` of an epoch, made as the workers ask for them.

    It holds no loader: a loader that its own workers' iterator refers to would be freed by the
    garbage collector only, which stops worker processes slowly.
    """
    # Numbered in the global order, so that the views do not depend on the ranks.
    places, positions = sampler.numbers(), sampler.positions()
    for number in numbers:
        batch = slice(number * batch_size, (number + 1) * batch_size)
        rows = sampler.arrange(len(positions[batch]))
        yield [
            Draw(epoch, int(place), int(p))
            for place, p in zip(places[batch][rows], positions[batch][rows], strict=True)
        ]


class _Plan:
    """Batch sampler of a DataLoader that lives for many epochs: it hands out what it is given."""

    batches: Iterator[list[Draw]] = iter(())

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.batches
