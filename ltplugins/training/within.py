# SPDX-License-Identifier: MIT
"""A place within an epoch: what a checkpoint there needs beside weights, optimiser and loader.

The generators of random numbers, the means that Lightning has summed up since the epoch began, and
what metrics in the module have collected. With these a run that goes on in the middle of an epoch
ends as one that was never stopped.
"""

import random
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchmetrics import Metric


def place(trainer: Trainer) -> dict[str, Any]:
    """What every rank needs to go on from here, as tensors and plain values.

    Every rank takes part; the first one's is the whole.
    """
    own = {"random": _random_state(), "sums": _sums(trainer), "metrics": _collected(trainer)}
    ranks: list[Any] = [own]
    if trainer.world_size > 1:
        ranks = [None] * trainer.world_size
        torch.distributed.all_gather_object(ranks, own)
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    return {"epoch": trainer.current_epoch, "batches": batches, "ranks": ranks}


class GoOnWithin(Callback):
    """Brings a run back to a :func:`place` before its first batch, where its checkpoint has one."""

    def __init__(self) -> None:
        self._own: dict[str, Any] | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what the checkpoint says of this rank."""
        found = checkpoint.get("ltplugins", {}).get("within")
        if found is not None:
            self._own = found["ranks"][trainer.global_rank]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Do once what Lightning leaves out in the middle of an epoch, and restore the rest."""
        own, self._own = self._own, None
        if own is None:
            return
        # It sets modes and marks, and may renew buffers that are the checkpoint's.
        buffers = {name: value.clone() for name, value in pl_module.named_buffers()}
        pl_module.on_train_epoch_start()
        for name, value in pl_module.named_buffers():
            value.copy_(buffers[name])
        _go_on_summing(trainer, own["sums"])
        for name, module in pl_module.named_modules():
            if isinstance(module, Metric) and name in own["metrics"]:
                _restore_metric(module, own["metrics"][name])
        _set_random_state(own["random"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums of the next epoch begin at nothing."""
        vars(_results(trainer)).pop("update_metrics", None)


def _go_on_summing(trainer: Trainer, sums: Mapping[str, tuple[Tensor, int]]) -> None:
    """Let each sum begin at what it was: before its first value, as the order of adding counts."""
    results, left = _results(trainer), dict(sums)
    update = results.update_metrics

    def restore_and_update(key: str, *args: Any, **kwargs: Any) -> None:
        if key in left:
            entry = results[key]
            value, count = left.pop(key)
            entry.value = value.to(entry.value.device)
            if entry.meta.is_mean_reduction:
                entry.cumulated_batch_size = entry.cumulated_batch_size + count
        update(key, *args, **kwargs)

    results.update_metrics = restore_and_update


def _results(trainer: Trainer) -> Any:
    return trainer.fit_loop.epoch_loop._results


def _sums(trainer: Trainer) -> dict[str, tuple[Tensor, int]]:
    """What is logged by epoch, so far: the sum, and of how many images."""
    return {
        key: (entry.value.detach().cpu().clone(), int(getattr(entry, "cumulated_batch_size", 0)))
        for key, entry in _results(trainer).items()
        if entry.is_tensor and entry.meta.on_epoch
    }


def _collected(trainer: Trainer) -> dict[str, Any]:
    module: pl.LightningModule = trainer.lightning_module
    return {
        name: {"count": metric.update_count, "state": _on_cpu(dict(metric.metric_state))}
        for name, metric in module.named_modules()
        if isinstance(metric, Metric) and metric.update_count
    }


def _restore_metric(metric: Metric, found: Mapping[str, Any]) -> None:
    for name, value in found["state"].items():
        moved = [v.to(metric.device) for v in value] if isinstance(value, list) else value
        setattr(metric, name, moved.to(metric.device) if isinstance(moved, Tensor) else moved)
    metric._update_count = found["count"]


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _on_cpu(inner) for key, inner in value.items()}
    return [_on_cpu(inner) for inner in value] if isinstance(value, list) else value


def _random_state() -> dict[str, Any]:
    state: Any = np.random.get_state()
    name, keys, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(found: Mapping[str, Any]) -> None:
    version, inner, gauss = found["python"]
    random.setstate((version, tuple(inner), gauss))
    name, keys, *rest = found["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(found["torch"])
    if found["cuda"] and len(found["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(found["cuda"])
