# SPDX-License-Identifier: MIT
"""What tests on a GPU share: the device, and a stretch of work in which nothing waits for it.

With ``GPU_DRY_RUN=1`` on a machine without one, the same tests run on the CPU: every line of theirs
but the watch over waiting, which only a card can keep.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

Views = Callable[[Tensor, Any], Any]
DRY = os.environ.get("GPU_DRY_RUN") == "1" and not torch.cuda.is_available()
DEVICE = "cpu" if DRY else "cuda"


def on_a_gpu(test: Any) -> Any:
    """Mark a test that needs a CUDA device."""
    missing = pytest.mark.skipif(not (torch.cuda.is_available() or DRY), reason="no CUDA device")
    return pytest.mark.gpu(missing(test))


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Turn whatever makes the CPU wait for the device into an error."""
    if DRY:
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def made_without_waiting(
    views: Views, images: Tensor, seeds: Callable[[int], Any]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each view as the GPU makes it, without a synchronisation, and as the CPU does.

    Args:
        views: makes the views of images with a seeded generator.
        seeds: gives the generators of a seed.
    """
    on_device = images.to(DEVICE)
    views(on_device, seeds(0))  # constants are made once
    with nothing_waits():
        found = views(on_device, seeds(1))
    for view, other in zip(found, views(images, seeds(1)), strict=True):
        yield view.cpu(), other


def all_there(module: nn.Module) -> None:
    """Every parameter and buffer is where the training is."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    strays = {name for name, value in tensors.items() if value.device.type != DEVICE}
    assert not strays, strays


class NoWaiting(pl.Callback):
    """Lets no training step wait for the device, nor what the method does after it.

    The first steps of the run may: constants are made in them.

    Attributes:
        watched: steps that were under watch.
    """

    def __init__(self, first: int = 2) -> None:
        self.first, self.watched = first, 0
        self._watch: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        after = pl_module.on_train_batch_end

        def watched_after(*args: Any, **kwargs: Any) -> None:
            if trainer.global_step <= self.first:
                after(*args, **kwargs)
                return
            with nothing_waits():
                after(*args, **kwargs)

        pl_module.on_train_batch_end = watched_after  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.first:
            self._watch = nothing_waits()
            self._watch.__enter__()
            self.watched += 1

    def on_train_batch_end(self, *_: Any) -> None:
        self._end()

    def on_exception(self, *_: Any) -> None:
        self._end()

    def _end(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.__exit__(None, None, None)
