# SPDX-License-Identifier: MIT
"""Health of the backbone's features while training: logged as ``health_*``, with an alarm.

What is measured stands in :mod:`ltplugins.metrics.health`. No label has a part in it, except in the
angles of the online classifier's weights.

Legend: B batch of one rank, N images, D dim, C classes.
"""

import logging
import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ltplugins.core.distributed import gather_no_grad
from ltplugins.core.errors import UserError
from ltplugins.core.modes import looked_at
from ltplugins.metrics.collapse import Health
from ltplugins.metrics.health import etf_deviation, measure

log = logging.getLogger(__name__)


class HealthWatch(pl.Callback):
    """Measure the features of an epoch's last batches, under their first two views.

    The features are the backbone's, in eval mode: nothing that trains is touched. The weights move
    by the few steps of those batches while they are collected. ``health: true`` in a config makes
    it, and so does a block of ``callbacks``:
    ``{_target_: ltplugins.training.health.HealthWatch, every: 5}``.

    Args:
        every: epochs; the last one is always measured.
        images: of all ranks together, at the least; fewer where an epoch has fewer.

    Raises:
        UserError: a value below 1, or fewer than 2 images.
    """

    def __init__(self, every: int = 1, images: int = 1024) -> None:
        if every < 1 or images < 2:
            raise UserError(
                f"health: expected every of 1 or more epochs and 2 or more images, got "
                f"every={every} and images={images}. Set them so, or leave them out."
            )
        self.every, self.images = every, images
        self._first: list[Tensor] = []
        self._second: list[Tensor] = []
        self._said: set[str] = set()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what an epoch that was broken off has left."""
        self._first, self._second = [], []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Take the features of ``[indexes (B,), views V x (B, 3, H, W), targets (B,)]``."""
        if not self._is_due(trainer):
            return
        views = [batch[1]] if isinstance(batch[1], Tensor) else batch[1]
        needed = math.ceil(self.images / (len(views[0]) * trainer.world_size))
        batches = trainer.num_training_batches
        if not (batches - needed <= batch_idx if math.isfinite(batches) else batch_idx < needed):
            return
        backbone: Any = pl_module.backbone
        kind = next(backbone.parameters()).dtype
        with looked_at(backbone):
            for kept, view in zip((self._first, self._second), views, strict=False):
                kept.append(backbone(view.to(kind)).flatten(1).float())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure and log; warn once of each kind of collapse."""
        if not self._first:
            return
        first = gather_no_grad(torch.cat(self._first))
        other = gather_no_grad(torch.cat(self._second)) if self._second else None
        self._first, self._second = [], []
        if len(first) < 2:
            return
        found = measure(first, other)
        # The same on every rank, so that their mean is the number.
        values = _values(found, pl_module)
        pl_module.log_dict(values, sync_dist=True, batch_size=1)
        self._warn(found, trainer)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        done = trainer.current_epoch + 1
        return done % self.every == 0 or done == trainer.max_epochs

    def _warn(self, found: Health, trainer: pl.Trainer) -> None:
        said = found.alarm()
        kind = (said or "").partition("(")[0]
        if said is None or kind in self._said or not trainer.is_global_zero:
            return
        self._said.add(kind)
        log.warning("health after epoch %d: %s.", trainer.current_epoch + 1, said)


def _values(found: Health, module: pl.LightningModule) -> dict[str, float]:
    values = {
        "health_rankme": found.rankme,
        "health_uniformity": found.uniformity,
        "health_dead": found.dead,
    }
    if found.alignment is not None:
        values["health_alignment"] = found.alignment
    weight = getattr(getattr(module, "classifier", None), "weight", None)
    if isinstance(weight, Tensor) and weight.ndim == 2 and len(weight) > 2:
        values["health_classifier_etf"] = etf_deviation(weight.detach())
    return values
