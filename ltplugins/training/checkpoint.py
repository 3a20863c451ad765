# SPDX-License-Identifier: MIT
"""Checkpoints that a run resumes from exactly."""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ltplugins.config.run import RunConfig
from ltplugins.config.sections import CheckpointSection
from ltplugins.core.errors import UserError
from ltplugins.core.files import atomic_path, write_json
from ltplugins.core.records import to_plain
from ltplugins.host.stem import is_small
from ltplugins.runs.checkpoint import ARGS
from ltplugins.runs.facts import Progress
from ltplugins.runs.folder import RunFolder
from ltplugins.runs.metrics import MetricsLogger
from ltplugins.training.stopping import WallClock, is_trial

log = logging.getLogger(__name__)


class RunCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` under a temporary name and renames it; the last epoch always.

    Beside it lies ``args.json``, the config as solo-learn's own scripts read it.

    As one of Lightning's Checkpoint callbacks it runs after every other end-of-epoch hook, so
    what a method changes there (GH's prior) is in the file.

    Args:
        folder: of the checkpoints.
        meta: what the run is: config, host, split.
        section: how often; with ``enabled: false`` never, metrics are written all the same.
        planned_epochs: of the config.
        clock: ``max_time``; an epoch that it cuts short is not saved, so that the run that goes on
            equals the unbroken one.
    """

    def __init__(
        self,
        folder: Path,
        meta: dict[str, Any],
        section: CheckpointSection,
        planned_epochs: int = 0,
        clock: WallClock | None = None,
    ) -> None:
        self.folder, self.meta, self.section = folder, meta, section
        self.planned_epochs, self.clock = planned_epochs, clock
        self.progress: Progress | None = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what the run is, how far it is, and the means of the epoch that ends."""
        means = {k: float(v) for k, v in trainer.callback_metrics.items() if k.endswith("_epoch")}
        progress = to_plain(self.count(trainer))
        checkpoint["ltplugins"] = {
            **self.meta,
            "small_stem": is_small(pl_module.backbone),
            "progress": progress,
            "last_epoch": means,
        }

    def count(self, trainer: Trainer) -> Progress:
        """How far the training is, at the end of an epoch."""
        batches = trainer.num_training_batches
        if is_trial(trainer):
            loader: Any = trainer.train_dataloader
            batches = len(loader)
        steps = math.ceil(batches / trainer.accumulate_grad_batches)
        epochs = trainer.current_epoch + is_whole_epoch(trainer)
        planned = self.planned_epochs or trainer.max_epochs or 0
        return Progress(epochs, planned, trainer.global_step, steps * planned)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save every ``frequency`` epochs and at the end.

        Raises:
            UserError: training has diverged; the last good checkpoint is left alone.
        """
        epoch = trainer.current_epoch
        _refuse_diverged(trainer)
        is_cut = self.clock is not None and self.clock.is_up and not is_whole_epoch(trainer)
        is_last = epoch + 1 == trainer.max_epochs or trainer.should_stop
        is_due = is_last or (epoch + 1) % self.section.frequency == 0
        if not is_cut:
            self.progress = self.count(trainer)
        if self.section.enabled and is_due and not is_cut:
            self._save(trainer, "last.ckpt")
            if self.section.keep_prev:
                self._save(trainer, f"epoch={epoch}.ckpt")
        for logger in trainer.loggers:
            logger.save()

    def _save(self, trainer: Trainer, name: str) -> None:
        if trainer.is_global_zero and "config" in self.meta and not (self.folder / ARGS).exists():
            write_json(self.folder / ARGS, self.meta["config"])
        if trainer.world_size == 1:
            with atomic_path(self.folder / name) as tmp:
                trainer.save_checkpoint(tmp)
            return
        # Every rank takes part in saving; only the first one renames.
        tmp = self.folder / f".{name}.part"
        trainer.save_checkpoint(tmp)
        if trainer.is_global_zero:
            tmp.replace(self.folder / name)
        trainer.strategy.barrier()


def _refuse_diverged(trainer: Trainer) -> None:
    values = trainer.callback_metrics.items()
    bad = [k for k, v in values if "loss" in k and not torch.isfinite(torch.as_tensor(v)).all()]
    if bad:
        raise UserError(
            f"training has diverged in epoch {trainer.current_epoch + 1}: {', '.join(bad)} is not "
            f"finite. The checkpoint of the epoch before is kept. Lower optimizer.lr, lengthen "
            f"scheduler.warmup_epochs, or set gradient_clip_val, and give a new output_dir."
        )


def continue_metrics(logger: MetricsLogger, checkpoint: Path) -> None:
    """Let the logger take over the rows that the checkpoint's run has written."""
    # Ours, from this run's own folder; tensors and plain values only.
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    last_epoch = content.get("ltplugins", {}).get("last_epoch", {})
    logger.continue_from(content["global_step"], content["epoch"], last_epoch)


def own_checkpoint(cfg: RunConfig, run: RunFolder, logger: MetricsLogger) -> str | None:
    """The folder's last checkpoint, from which the run goes on; None without one.

    Raises:
        UserError: resuming is turned off and the folder has one.
    """
    last = run.last_checkpoint
    if last is None:
        return None
    if not cfg.auto_resume.enabled:
        raise UserError(
            f"{run.path} holds an interrupted run and auto_resume.enabled is false. Enable it to "
            f"go on, add overwrite=true to start anew, or set output_dir to a new folder."
        )
    continue_metrics(logger, last)
    log.info("going on from %s", last)
    return str(last)


def is_whole_epoch(trainer: Trainer) -> bool:
    """At the end of an epoch: whether it took all batches."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return not is_trial(trainer) and batches.processed >= trainer.num_training_batches
