# SPDX-License-Identifier: MIT
"""Repairs of solo-learn 1.0.6 for when it is the host. Explicit: our scripts call ``apply_fixes``.

Two of its defects break promises that we make on every host:

- ``WeightedKNNClassifier`` passes ``compute_on_step``, which torchmetrics >= 1 refuses, so that
  ``knn_eval.enabled`` crashes at construction; and it sizes its vote by the classes present in the
  test split, so that a subset crashes. Ours takes its place.
- ``MomentumUpdater.cur_tau`` is not saved, and the step counter restarts at 0, so that a resumed
  run differs from the unbroken one.
"""

import functools
import importlib
import logging
from typing import Any

from ltplugins.host.momentum_state import load_tau, save_tau

logger = logging.getLogger(__name__)


def apply_fixes() -> list[str]:
    """Repair the imported solo-learn; twice is the same as once.

    Returns:
        What is repaired, in words.

    Raises:
        ImportError: there is no solo-learn to repair.
    """
    base = importlib.import_module("solo.methods.base")
    base.WeightedKNNClassifier = _knn_class()  # type: ignore[attr-defined]
    _save_tau(base.BaseMomentumMethod)
    fixes = ["online kNN replaced", "momentum tau saved and restored"]
    logger.info("solo-learn repaired: %s", ", ".join(fixes))
    return fixes


@functools.cache
def _knn_class() -> type:
    from ltplugins.eval.knn import OnlineKNN

    class HostKNN(OnlineKNN):
        """solo-learn relies on ``compute`` to empty the bank; it never calls ``reset``."""

        def compute(self) -> Any:
            result = super().compute()
            self.reset()
            return result

    return HostKNN


def _save_tau(cls: Any) -> None:
    """Put the momentum state into the checkpoints of ``cls`` and its subclasses."""
    if getattr(cls, "_ltplugins_saves_tau", False):
        return
    save, load, start = cls.on_save_checkpoint, cls.on_load_checkpoint, cls.on_train_start

    def on_save_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        save(self, checkpoint)
        save_tau(self, checkpoint)

    def on_load_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        load(self, checkpoint)
        load_tau(self, checkpoint)

    def on_train_start(self: Any) -> None:
        start(self)
        self.last_step = self.trainer.global_step

    cls.on_save_checkpoint = on_save_checkpoint
    cls.on_load_checkpoint = on_load_checkpoint
    cls.on_train_start = on_train_start
    cls._ltplugins_saves_tau = True
