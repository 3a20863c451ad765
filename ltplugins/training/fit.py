# SPDX-License-Identifier: MIT
"""The one way in which a stage trains: open the folder, resume, fit, write down how it ended.

A stage says what it trains (:class:`Job`); this file is about the folder, the checkpoints and the
ranks. The same command again continues an interrupted run and leaves a finished one as it is.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ltplugins.config.run import RunConfig
from ltplugins.core.records import to_plain
from ltplugins.runs.facts import Origin, now
from ltplugins.runs.folder import RunFolder
from ltplugins.runs.metrics import MetricsLogger
from ltplugins.training.checkpoint import RunCheckpoint, checkpoint_to_resume, require_checkpoint
from ltplugins.training.progress import RunProgress
from ltplugins.training.trainer import build_trainer

log = logging.getLogger(__name__)


def _nothing() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Job:
    """What a stage trains.

    Attributes:
        model: the module.
        data: its data.
        config: what the folder and the checkpoints store.
        identity: what the numbers depend on.
        origin: method, host and split.
        announce: says on the first rank what starts; not called where nothing is left to train.
        conclude: the facts that are known only at the end, by their names in ``RunFacts``.
        callbacks: of this stage, beside those that every training has.
    """

    model: pl.LightningModule
    data: pl.LightningDataModule
    config: DictConfig
    identity: Mapping[str, Any]
    origin: Origin
    announce: Callable[[], Any]
    conclude: Callable[[], Mapping[str, Any]] = _nothing
    callbacks: Sequence[pl.Callback] = ()


class Training:
    """A Trainer and the folder that it fills.

    Args:
        cfg: length, machine, checkpoints.
        folder: of the run.
        name: of what is trained, for the progress line.

    Raises:
        UserError: Lightning does not take its arguments.
    """

    def __init__(self, cfg: RunConfig, folder: str | Path, name: str) -> None:
        self.cfg, self.run = cfg, RunFolder(folder)
        self.progress = RunProgress(name, cfg.optimizer.batch_size)
        self.logger = MetricsLogger(self.run.metrics)
        self.trainer = build_trainer(cfg, self.progress, self.logger)

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.trainer.world_size

    def start(self, job: Job) -> Path:
        """Train, or go on, or find that all is done; return the folder.

        Raises:
            UserError: the folder holds something else, another process writes there, the
                checkpoint does not fit, or training diverges.
        """
        require_checkpoint(self.cfg)
        try:
            self._train(job)
        finally:
            self.run.close()
        return self.run.path

    def _train(self, job: Job) -> None:
        is_first = getattr(rank_zero_only, "rank", 0) == 0
        # A rank that another launcher has started decides as the first one does, or it would wait.
        is_finished = (
            self.run.open(job.config, job.identity, job.origin)
            if is_first
            else self.run.look(job.identity)
        )
        if is_finished:
            log.info("%s is complete: nothing to train.", self.run.path)
            return
        if is_first:
            job.announce()
        saver = RunCheckpoint(self.run.checkpoints, _meta(job), self.cfg.checkpoint)
        checkpoint = checkpoint_to_resume(self.cfg, self.run, self.logger)
        self.trainer.callbacks += [*job.callbacks, saver]  # type: ignore[attr-defined]
        started = time.perf_counter()
        self.trainer.fit(job.model, datamodule=job.data, ckpt_path=checkpoint)
        if self.trainer.is_global_zero and not self.trainer.interrupted:
            seconds = round(time.perf_counter() - started, 1)
            self.run.update(
                **job.conclude(),
                finished=now(),
                seconds=seconds,
                images_per_second=round(self.progress.images_per_second, 1),
            )


def _meta(job: Job) -> dict[str, Any]:
    """What a checkpoint says of itself, so that it can be opened without its folder."""
    config = OmegaConf.to_container(job.config, resolve=True)
    return {**to_plain(job.origin), "config": config, "identity": dict(job.identity)}
