# SPDX-License-Identifier: MIT
"""Checkpoints that a run resumes from exactly."""

import contextlib
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ltplugins.config.sections import CheckpointSection
from ltplugins.core.files import temporary, write_json
from ltplugins.core.records import to_plain
from ltplugins.host.stem import is_small
from ltplugins.runs.facts import Progress
from ltplugins.runs.places import ARGS, LAST, PREVIOUS, STOPPED
from ltplugins.training.faults.finite import require_finite
from ltplugins.training.stopping import WallClock, is_trial
from ltplugins.training.within import place

log = logging.getLogger(__name__)


class RunCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` under a temporary name and renames it; the last epoch always.

    Beside it lie the one before it, ``previous.ckpt``, and ``args.json``, the config as
    solo-learn's own scripts read it. Nothing is saved whose weights or optimiser state are not
    finite.

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
        self.within: dict[str, Any] | None = None  # a place in an epoch, while it is saved
        self.is_stopped: Callable[[], bool] = lambda: False  # by a signal, which makes a save due
        self.goes_on = False  # from a checkpoint of the run's own, whose progress counts

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
            **({"within": self.within} if self.within else {}),
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Know how far the run is, also where it has nothing more to train."""
        found = checkpoint.get("ltplugins", {}).get("progress")
        if self.goes_on and found is not None:
            self.progress = Progress(**found)

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
        is_cut = self.clock is not None and self.clock.is_up and not is_whole_epoch(trainer)
        is_last = epoch + 1 == trainer.max_epochs or trainer.should_stop or self.is_stopped()
        is_due = is_last or (epoch + 1) % self.section.frequency == 0
        if not is_cut:
            self.progress = self.count(trainer)
        if self.section.enabled and is_due and not is_cut:
            self._save(trainer)
        for logger in trainer.loggers:
            logger.save()

    def save_within(self, trainer: Trainer) -> None:
        """Save the place between two steps of an epoch, as ``stopped.ckpt``.

        Raises:
            UserError: training has diverged.
        """
        if self.section.enabled:
            require_finite(trainer)
            self.within, self.progress = place(trainer), self.count(trainer)
            trainer.save_checkpoint(self.folder / STOPPED)
            self.within = None
        for logger in trainer.loggers:
            logger.save()

    def _save(self, trainer: Trainer) -> None:
        """Save the epoch that ends; what ``last.ckpt`` was stays as an earlier one."""
        require_finite(trainer)
        if trainer.is_global_zero:
            if "config" in self.meta and not (self.folder / ARGS).exists():
                write_json(self.folder / ARGS, self.meta["config"])
            self._keep_previous()
        trainer.save_checkpoint(self.folder / LAST)
        if self.section.keep_prev:
            trainer.save_checkpoint(self.folder / f"epoch={trainer.current_epoch}.ckpt")
        if trainer.is_global_zero:
            (self.folder / STOPPED).unlink(missing_ok=True)

    def _keep_previous(self) -> None:
        last, previous = self.folder / LAST, self.folder / PREVIOUS
        if not self.section.previous or self.section.keep_prev:
            previous.unlink(missing_ok=True)
        elif last.exists():
            keep_as(last, previous)


def keep_as(path: Path, other: Path) -> None:
    """Give a file a second name, in the place of what has it; the file itself is not copied.

    Where a file system has no such names, nothing is kept.
    """
    tmp = temporary(other, other.suffix)
    try:
        os.link(path, tmp)
        os.replace(tmp, other)
    except OSError as error:
        log.warning("%s cannot be kept (%s): only %s is.", other, error.strerror, path.name)
        with contextlib.suppress(OSError):
            tmp.unlink()


def is_whole_epoch(trainer: Trainer) -> bool:
    """At the end of an epoch: whether it took all batches."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return not is_trial(trainer) and batches.processed >= trainer.num_training_batches
