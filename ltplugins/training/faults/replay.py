# SPDX-License-Identifier: MIT
"""A step that diverged, once more: from the checkpoint before it, watched module by module.

An epoch's images, views and random numbers follow from the config alone, so that training on from
the checkpoint comes to the very step again. Nothing is written.
"""

import logging
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.training.faults.divergence import Divergence
from ltplugins.training.faults.finite import all_finite

log = logging.getLogger(__name__)

# What a training repeats in the place of training; None: it trains.
REPEATED: ContextVar["Replay | None"] = ContextVar("REPEATED", default=None)


class _Done(Exception):
    """The step has been repeated."""


class Replay(Callback):
    """Trains to a step, looks into it, and ends.

    Args:
        found: the step.
        folder: of the run.

    Attributes:
        lines: what was seen in the step.
    """

    def __init__(self, found: Divergence, folder: Path) -> None:
        self.found, self.folder = found, folder
        self.lines: list[str] = []
        self._hooks: list[Any] = []
        self._first: str | None = None

    def run(self, trainer: Trainer, model: Any, data: Any) -> None:
        """Train to the step with a stage's own model and data.

        Raises:
            UserError: a run of several processes, or the step does not come.
        """
        if trainer.world_size > 1:
            raise UserError(
                f"a step of {trainer.world_size} processes cannot be repeated here; its images, by "
                f"rank, are the indexes in the file."
            )
        trainer.loggers = []
        kept = [cb for cb in trainer.callbacks if not isinstance(cb, LearningRateMonitor)]  # type: ignore[attr-defined]
        trainer.callbacks = [*kept, self]  # type: ignore[attr-defined]
        name = self.found.checkpoint
        start = None if name is None else self.folder / "checkpoints" / name
        log.info("from %s to %s", start or "the run's start", self.found.place)
        try:
            trainer.fit(model, datamodule=data, ckpt_path=start)
        except _Done:
            return
        raise UserError(
            f"{start or 'the run'} does not come to {self.found.place}: the checkpoint is of later "
            f"steps, or the config is another."
        )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before the step: look at the weights, and listen to every module."""
        if (trainer.current_epoch, batch_idx) != (self.found.epoch, self.found.batch):
            return
        weights = dict(pl_module.named_parameters())
        bad = [name for name, value in weights.items() if not all_finite([value])]
        largest = max(weights, key=lambda name: float(weights[name].detach().abs().max()))
        value = float(weights[largest].detach().abs().max())
        self.lines.append(
            f"weights before the step: {len(bad)} of {len(weights)} not finite"
            + (f", first {bad[0]}" if bad else f"; largest {value:.3g} in {largest}")
        )
        for name, module in pl_module.named_modules():
            if not list(module.children()):
                self._hooks.append(module.register_forward_hook(self._listen(name)))

    def _listen(self, name: str) -> Any:
        def heard(module: Any, inputs: Any, output: Any) -> None:
            if self._first is None and isinstance(output, Tensor) and not all_finite([output]):
                self._first = f"{name} ({type(module).__name__})"

        return heard

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """In the step: look at the gradients."""
        if not self._hooks:
            return
        grads = {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
        bad = [name for name, grad in grads.items() if not all_finite([grad])]
        first = f", first {bad[0]}" if bad else ""
        self.lines.append(f"gradients: {len(bad)} of {len(grads)} not finite{first}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the step: say what was seen, and end."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        self.lines.append(f"first output that is not finite: {self._first or 'none'}")
        self.lines.append(f"loss: {float(loss):.6g}" if isinstance(loss, Tensor) else "no loss")
        for name, value in sorted(trainer.callback_metrics.items()):
            if name.startswith("train_") and not name.endswith("_epoch"):
                self.lines.append(f"{name}: {float(value):.6g}")
        same = isinstance(batch, list | tuple) and isinstance(batch[0], Tensor)
        if same and batch[0].flatten().tolist() != self.found.indexes[0]:
            self.lines.append("its images are others: the data or the config have changed")
        is_bad = isinstance(loss, Tensor) and not bool(torch.isfinite(loss))
        is_bad = is_bad or any("gradients: 0 " not in x for x in self.lines if "gradients" in x)
        self.lines.append("the step diverges again" if is_bad else "the step does not diverge here")
        raise _Done
