# SPDX-License-Identifier: MIT
"""Processes that load images: one that dies, one that is stopped, one that hangs."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from scripts.soak.ledger import LOST, Case, Ledger
from scripts.soak.tasks import Bench, pretraining

WORKERS = "workers"
_PATIENCE = 3  # seconds, of data.worker_timeout
_PLACE = (1, 1)  # epoch and batch


def loader_faults(bench: Bench, ledger: Ledger) -> Iterator[Case]:
    """Each fault in the training's and in the validation's loader."""
    for fault in (die, stop, hang):
        for part in ("train", "validation")[: 1 if fault is hang else 2]:
            row = f"a process that loads images, {fault.__name__}"
            if not ledger.has(WORKERS, row, part):
                yield _case(bench, fault, part, row)


def _case(bench: Bench, fault: Callable[[], Any], part: str, row: str) -> Case:
    task = pretraining(bench, "simclr", "workers", "loader", data__worker_timeout=_PATIENCE)
    bench.whole(task)
    bench.hit(task)
    ended = bench.start(task, before=lambda: at_place(fault, part)).wait()
    if not ended.is_refusal:
        return Case(WORKERS, row, part, LOST, what=f"exit {ended.code}: {ended.said[-200:]}")
    return bench.judge(task, WORKERS, row, part, before=bench.tell(ended))


def at_place(fault: Callable[[], Any], part: str) -> None:
    """Let a fault happen in the second epoch of this process's training."""
    from ltplugins.training.seeds import EpochSeed

    def train(self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if part == "train" and (trainer.current_epoch, batch_idx) == _PLACE:
            fault()

    def validate(self: Any, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if part == "validation" and trainer.current_epoch == _PLACE[0]:
            fault()

    if fault is hang:
        never()
    EpochSeed.on_train_batch_start = train  # type: ignore[method-assign]
    EpochSeed.on_validation_batch_start = validate  # type: ignore[method-assign]


def die() -> None:
    """As the system does to one when memory is short."""
    _send(signal.SIGKILL)


def stop() -> None:
    """As of a debugger, or a terminal."""
    _send(signal.SIGSTOP)


def hang() -> None:
    """Nothing, from here: a picture that is never read; see :func:`never`."""


def never() -> None:
    """Let the loaders' processes hang at the first picture of the second epoch."""
    from ltplugins.data.engines.draws import ViewDataset

    load = ViewDataset.__getitems__

    def hangs(self: Any, draws: Any) -> Any:
        if draws[0].epoch == _PLACE[0]:
            time.sleep(1e6)
        return load(self, draws)

    ViewDataset.__getitems__ = hangs  # type: ignore[method-assign]


def _send(number: int) -> None:
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, number)
