# SPDX-License-Identifier: MIT
"""Accuracy by shot group while training: ``val_acc1_few``, ``val_knn_acc1_few``, on any host.

The hosts keep means of their validation batches, no predictions. So the online classifier's logits
are looked at where they leave the method's ``forward``, and those of the online kNN where it votes:
no method knows of it, and none has to be changed.
"""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from ltplugins.metrics.online_knn import OnlineKNN
from ltplugins.metrics.shot_accuracy import ShotAccuracy


class ShotGroups(pl.Callback):
    """Log top-1 accuracy of the many-, medium- and few-shot classes at the end of a validation.

    A group without a validation image is not logged. What is named after the host's metric is the
    same number for some of the classes: ``val_acc1`` is the online classifier's over all of them.

    Args:
        class_counts: Int[C], training images per class.
        protocol: the groups' rule, ``threshold`` or ``tercile``.
    """

    def __init__(self, class_counts: Sequence[int] | Tensor, protocol: str) -> None:
        self.classifier = ShotAccuracy(class_counts, protocol)
        # Every rank votes on all test images: what one rank has counted is the whole.
        self.knn = ShotAccuracy(class_counts, protocol, sync_on_compute=False)
        self._preds: Tensor | None = None
        self._hook: Any = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count what the module predicts for validation images."""
        if trainer.sanity_checking:
            return
        self.classifier.to(pl_module.device).reset()
        self._hook = pl_module.register_forward_hook(self._look)
        knn = _online_knn(pl_module)
        if knn is not None:
            knn.on_predictions = lambda preds, targets: self._log_knn(pl_module, preds, targets)

    def _look(self, module: Any, inputs: Any, output: Any) -> None:
        # DDP sends the whole step through the module as well: that has no logits.
        if self._preds is None and isinstance(output, dict) and "logits" in output:
            self._preds = output["logits"].detach().argmax(dim=1)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count ``[images (N, 3, H, W), targets (N,)]``."""
        preds, self._preds = self._preds, None
        if preds is not None:
            self.classifier.update(preds, batch[-1])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the classifier's accuracies; the host's own end of the epoch asks the kNN."""
        if self._hook is not None:
            _log(pl_module, "val_acc1", self.classifier.compute())

    def _log_knn(self, pl_module: pl.LightningModule, preds: Tensor, targets: Tensor) -> None:
        self.knn.to(preds.device).reset()
        self.knn.update(preds, targets)
        _log(pl_module, "val_knn_acc1", self.knn.compute())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop counting and leave the module as it was."""
        self._stop(pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Stop counting and leave the module as it was."""
        self._stop(pl_module)

    def _stop(self, pl_module: pl.LightningModule) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._preds = None
        knn = _online_knn(pl_module)
        if knn is not None:
            knn.on_predictions = None


def _online_knn(module: pl.LightningModule) -> OnlineKNN | None:
    knn = getattr(module, "knn", None)
    return knn if isinstance(knn, OnlineKNN) else None


def _log(module: pl.LightningModule, name: str, scores: dict[str, float]) -> None:
    """Under ``name_group``; the host logs ``overall`` itself."""
    values = {f"{name}_{group}": score for group, score in scores.items() if group != "overall"}
    # The same on every rank, so that their mean is the number.
    module.log_dict(values, sync_dist=True, batch_size=1)
