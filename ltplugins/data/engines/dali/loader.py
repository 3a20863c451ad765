# SPDX-License-Identifier: MIT
"""The ``dali`` engine: NVIDIA DALI decodes and augments, on a CPU or a GPU.

Our samplers and our random numbers drive it, DALI gives speed: indexes are true, every image comes
once an epoch, and an epoch can be left and gone on with anywhere, as with the other engines.

The source of DALI's ``external_source`` is a callable, so that DALI has no iterator to restart
behind our back: it asks for the next batch, and ``StopIteration`` ends the epoch. An epoch that was
left early leaves batches in DALI's queue, which are drained before the next.

The GPU path is the same graph with the decoder ``mixed``; no machine with a GPU has run it yet.

Legend: N training images, B batch of one rank, V views, S crop size.
"""

import functools
import gc
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from ltplugins.data.augment.schema import AugmentationBlock, normalisation
from ltplugins.data.engines.dali.damage import look_into
from ltplugins.data.engines.dali.feed import DaliDataset, FedBatch, needed_inputs, view_inputs
from ltplugins.data.engines.draws import Draw, raise_if_message
from ltplugins.data.engines.loader import Loader, epoch_draws
from ltplugins.data.samplers.base import Shard
from ltplugins.data.training_set import TrainingSet

log = logging.getLogger(__name__)

_AHEAD = 2  # batches that are read and drawn before DALI asks for them


@functools.cache
def _leave_to_the_parent() -> None:
    """Keep forked workers from freeing a pipeline of this process.

    A pipeline that is garbage here is garbage in the child too, where its threads do not exist and
    its destructor waits for them for ever. A frozen object is never collected.
    """
    os.register_at_fork(after_in_child=gc.freeze)


class _Prepared(NamedTuple):
    """A batch with everything that DALI is fed for it."""

    batch: FedBatch
    draws: list[Draw]
    arrays: tuple[Any, ...]


class _Feed:
    """The source of ``external_source``: it hands out prepared batches and remembers them."""

    def __init__(self) -> None:
        self.batches: Iterator[_Prepared] = iter(())
        self.sent: deque[_Prepared] = deque()  # those that DALI has and has not given back

    def __call__(self) -> tuple[Any, ...]:
        prepared = next(self.batches)  # its StopIteration ends DALI's epoch
        self.sent.append(prepared)
        return prepared.arrays


class DaliLoader(Loader):
    """The ``dali`` engine's loader.

    Args:
        blocks: the ``augmentations`` list.
        num_threads: of DALI's CPU operators.
        device: of DALI.
    """

    dataset: DaliDataset

    def __init__(
        self,
        *args: Any,
        blocks: Sequence[AugmentationBlock],
        num_threads: int,
        device: torch.device,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.blocks, self.num_threads = list(blocks), num_threads
        self.device = device
        self._feed = _Feed()
        self._pipeline: Any = None
        self._reader: ThreadPoolExecutor | None = None
        self._iteration: object = None
        self._message: str | None = None  # of the batch at which the epoch's feed ended

    def _produce(self, epoch: int, start: int) -> Iterator[list[Any]]:
        iteration = self._iteration = object()
        number, stop = start, len(self)
        while number < stop:
            self._restart()
            self._feed.batches = self._prepare(epoch, range(number, stop))
            for batch in self._run():
                number += 1
                yield batch
                if iteration is not self._iteration:
                    raise RuntimeError("another iteration over this loader has begun")
            if self._pipeline is not None:  # no batch failed: the feed has ended
                raise_if_message(self._message)
                assert number == stop, "DALI has ended an epoch early"

    def _run(self) -> Iterator[list[Any]]:
        """Give batches until the feed's end, or until DALI failed on one and it was looked into."""
        while True:
            try:
                outputs = self._pipeline.run()
            except StopIteration:
                return
            except RuntimeError as error:
                self._pipeline = None  # DALI's is not usable any more
                if not look_into(self.dataset, [p.draws for p in self._feed.sent]):
                    raise error
                return
            batch = self._feed.sent.popleft().batch
            self.count_corrupt(batch)
            indexes, *views = (_to_torch(output, self.device) for output in outputs)
            assert indexes.tolist() == batch.indexes.tolist()
            yield [indexes, views, torch.from_numpy(self.dataset.targets[batch.indexes])]

    def _prepare(self, epoch: int, numbers: range) -> Iterator[_Prepared]:
        """Prepare batches, a few ahead in a thread: reading files is waiting.

        It ends at a batch that cannot be made; the message is kept until that batch's turn.
        """
        self._message = None
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "dali-feed")
        waiting: deque[Future[_Prepared | str]] = deque()
        draws = epoch_draws(self.sampler, epoch, numbers, self.batch_size)
        for _ in numbers:
            while len(waiting) < _AHEAD and (drawn := next(draws, None)):
                waiting.append(self._reader.submit(_prepare, self.dataset, self.blocks, drawn))
            prepared = waiting.popleft().result()
            if isinstance(prepared, str):
                self._message = prepared
                return
            yield prepared

    def _restart(self) -> None:
        """Bring the pipeline to an epoch's start: what an earlier one left in it is drained."""
        self._feed.batches = iter(())
        if self._pipeline is not None:
            try:
                while True:
                    self._pipeline.run()
            except StopIteration:
                self._pipeline.reset()
            except RuntimeError:
                self._pipeline = None  # a damaged image in what nobody will see
        self._feed.sent.clear()
        if self._pipeline is None:
            self._pipeline = self._build()

    def _build(self) -> Any:
        from ltplugins.data.engines.dali.graph import views_pipeline

        _leave_to_the_parent()
        record = self.dataset.source.record
        on_cpu = self.device.type == "cpu"
        pipeline = views_pipeline(
            self._feed,
            self.blocks,
            [normalisation(block, record) for block in self.blocks],
            self.dataset.shape,
            "cpu" if on_cpu else "gpu",
            batch_size=self.batch_size,
            num_threads=self.num_threads,
            device_id=None if on_cpu else self.device.index or 0,
            seed=self.dataset.seed % 2**31,
        )
        pipeline.build()
        return pipeline


def _prepare(
    dataset: DaliDataset, blocks: Sequence[AugmentationBlock], draws: list[Draw]
) -> _Prepared | str:
    batch = dataset.__getitems__(draws)
    if isinstance(batch, str):
        return batch
    arrays: list[Any] = [batch.indexes, batch.images]
    for number, block in enumerate(blocks):
        names = needed_inputs(block, dataset.shape)
        for view in view_inputs(block, number, batch):
            arrays += [np.ascontiguousarray(view[name]) for name in names]
    return _Prepared(batch, draws, tuple(arrays))


def _to_torch(output: Any, device: torch.device) -> torch.Tensor:
    """Copy an output for the caller to keep: DALI uses its buffers again."""
    from nvidia.dali.plugin.pytorch import feed_ndarray, to_torch_type

    dense = output.as_tensor()
    place = torch.device("cpu") if "CPU" in type(output).__name__ else device
    copy = torch.empty(dense.shape(), dtype=to_torch_type[dense.dtype], device=place)
    stream = None if place.type == "cpu" else torch.cuda.current_stream(place)
    feed_ndarray(dense, copy, cuda_stream=stream)
    return copy


def build_dali(training: TrainingSet, shard: Shard, device: torch.device) -> DaliLoader:
    """Build the loader of one process; DALI works on ``device`` unless ``dali.device`` is cpu."""
    if training.dali.device == "cpu":
        device = torch.device("cpu")
    elif device.type == "cpu":
        log.warning("dali.device=gpu, and training is on the CPU: DALI works there too.")
    return DaliLoader(
        DaliDataset(training, seed=shard.seed),
        training.sampler(shard),
        batch_size=training.batch_size,
        drop_last=training.drop_last,
        blocks=training.blocks,
        num_threads=max(1, training.cfg.num_workers),
        device=device,
    )
