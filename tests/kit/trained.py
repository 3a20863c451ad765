# SPDX-License-Identifier: MIT
"""What holds of a wrapper's model when a run on the 42 generated arrays has ended, any base."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

IMAGES, BATCH, BUDGET = 42, 8, 8


class Record(pl.Callback):
    """What was drawn, and the rates, OOD subsets and strengths of a run."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, list[int]]] = []
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.subsets: list[list[int]] = []
        self.strengths: list[torch.Tensor] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.subsets.append(trainer.datamodule.ood_subset.tolist())

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, _: int):
        self.drawn.append((trainer.current_epoch, batch[0].tolist()))
        self.losses.append(float(outputs["loss"]))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if hasattr(module, "bcl_memory"):
            self.strengths.append(module.bcl_memory_strength.clone())

    def steps(self) -> list[int]:
        """Of each epoch."""
        return [sum(e == epoch for e, _ in self.drawn) for epoch in range(len(self.subsets))]

    def seen(self) -> list[int]:
        """The training images that were drawn."""
        return sorted({i for _, batch in self.drawn for i in batch if i < IMAGES})


def rows(filled: torch.Tensor) -> list[int]:
    return torch.nonzero(filled).flatten().tolist()


def gh(model: Any, metrics: dict[str, Any], record: Record) -> None:
    """The memory's rows are those of the images that were drawn, and no others."""
    assert metrics["train_gh_weight_epoch"] == 1.0
    seen = record.seen()
    # Batches of 8, the last one dropped: two images may stay unseen.
    assert rows(model.gh_memory_filled) == seen
    assert len(seen) >= 40
    assert model.gh_memory.shape == (IMAGES, 3)
    assert model.gh_memory[seen].abs().sum(dim=1).min() > 0
    assert model.gh_memory[[i for i in range(IMAGES) if i not in seen]].abs().sum() == 0
    assert model.gh_prior.sum() == pytest.approx(1.0)


def mv(model: Any, metrics: dict[str, Any], record: Record) -> None:
    assert 0 <= metrics["train_mv_kept_epoch"] <= 1
    assert (model.num_large_crops, model.mv_views) == (2, 3)
    if hasattr(model, "queue_ptr"):  # a step of eight images, whatever the number of pairs
        assert int(model.queue_ptr) == len(record.drawn) * BATCH % model.queue_size


def colt(model: Any, metrics: dict[str, Any], record: Record) -> None:
    """OOD images in two epochs of three; their scores leave no trace."""
    assert 0 < metrics["train_colt_score_epoch"] < 1
    assert [len(subset) for subset in record.subsets] == [0, BUDGET, BUDGET]
    assert record.steps() == [5, 6, 6]
    assert max(i for _, batch in record.drawn for i in batch) >= IMAGES
    assert record.rates[-1] < record.rates[0] or record.rates[-1] == pytest.approx(0.0, abs=1e-6)
    assert model.trainer.estimated_stepping_batches == len(record.drawn)
    assert model.colt_memory.shape == (IMAGES,)
    assert rows(model.colt_memory_filled) == record.seen()
    assert (model.colt_memory[record.seen()] > 0).all()


def ts(model: Any, metrics: dict[str, Any], record: Record) -> None:
    """T = 2 epochs: after one epoch the mean of 0.1 and 1."""
    assert model.temperature == pytest.approx(0.55)
    assert float(metrics["train_ts_temperature_epoch"]) == pytest.approx(0.55)


def sdclr(model: Any, metrics: dict[str, Any], record: Record) -> None:
    """All of the second branch learns, in bases with heads, predictors and queues of their own."""
    assert float(metrics["train_sdclr_sparsity_epoch"]) == pytest.approx(0.6, abs=1e-3)
    norms = dict(model.sdclr_norms.named_parameters())
    assert len(norms) >= 20
    assert all(p.grad is not None for p in norms.values())
    steps = len(record.drawn)
    moved = [k for k, v in model.sdclr_norms.named_buffers() if k.endswith("tracked")]
    assert all(int(model.sdclr_norms.get_buffer(k)) == steps for k in moved)
    for name, buffer in model.named_buffers():
        if name.startswith("momentum_backbone") and name.endswith("tracked"):
            assert int(buffer) == 2 * steps  # both views


def bcl(model: Any, metrics: dict[str, Any], record: Record) -> None:
    """Boosted views in two epochs of three."""
    assert metrics["train_bcl_loss_epoch"] > 0
    assert 0 < metrics["train_bcl_spread_epoch"] < 0.5
    assert rows(model.bcl_memory_filled) == record.seen()
    assert (model.bcl_memory[record.seen()] > 0).all()
    assert not record.strengths[0].any()
    for strengths in record.strengths[1:]:
        assert strengths.max() == 1 or strengths.min() == 0
    if model.cfg.method == "simclr":
        own, theirs = (float(metrics[f"train_{key}_epoch"]) for key in ("bcl_loss", "nce_loss"))
        assert own == pytest.approx(theirs, rel=1e-4)


CHECKS: dict[str, Callable[[Any, dict[str, Any], Record], None]] = {
    "gh": gh,
    "mv": mv,
    "colt": colt,
    "ts": ts,
    "sdclr": sdclr,
    "bcl": bcl,
}
