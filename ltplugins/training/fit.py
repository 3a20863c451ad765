# SPDX-License-Identifier: MIT
"""The one way in which a stage trains: open the folder, resume, fit, write down how it ended.

A stage says what it trains (:class:`Job`); this file is about the folder, the checkpoints and the
ranks. The same command again continues an interrupted run and leaves a finished one as it is.
"""

import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.core.records import to_plain
from ltplugins.runs.facts import Origin, now
from ltplugins.runs.folder import Found, RunFolder
from ltplugins.runs.metrics import MetricsLogger
from ltplugins.runs.places import own_checkpoints
from ltplugins.training.checkpoint import RunCheckpoint
from ltplugins.training.disk import require_room
from ltplugins.training.faults.divergence import DivergenceWatch
from ltplugins.training.faults.ranks import wait_for_ranks
from ltplugins.training.faults.replay import REPEATED
from ltplugins.training.listeners import build_callbacks, build_loggers
from ltplugins.training.memory import refuse_if_out_of_memory
from ltplugins.training.own import is_sound, own_checkpoint
from ltplugins.training.progress import RunProgress, Speed
from ltplugins.training.resume import NewSchedule, Start, misfit, require_fit
from ltplugins.training.signals import Signals, requeue
from ltplugins.training.stopping import WallClock, why_stopped
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
        start: another run's checkpoint to go on from.
    """

    model: pl.LightningModule
    data: pl.LightningDataModule
    config: DictConfig
    identity: Mapping[str, Any]
    origin: Origin
    announce: Callable[[], Any]
    conclude: Callable[[], Mapping[str, Any]] = _nothing
    callbacks: Sequence[pl.Callback] = ()
    start: Start | None = None


class Training:
    """A Trainer and the folder that it fills.

    Args:
        cfg: length, machine, checkpoints.
        folder: of the run.
        name: of what is trained, for the progress line.

    Raises:
        UserError: Lightning does not take its arguments, or a logger or callback cannot be made.
    """

    def __init__(self, cfg: RunConfig, folder: str | Path, name: str) -> None:
        self.cfg, self.run = cfg, RunFolder(folder)
        self.speed = Speed(cfg.optimizer.batch_size)
        self.logger = MetricsLogger(self.run.metrics)
        self.signals = Signals(lambda trainer: self._stop_within(trainer))
        self._saver: RunCheckpoint | None = None
        self.clock = WallClock(cfg.trainer["max_time"]) if cfg.trainer.get("max_time") else None
        own = [self.speed, self.signals, *([self.clock] if self.clock else [])]
        callbacks = [*own, *build_callbacks(cfg, self.run)]
        loggers = [self.logger, *build_loggers(cfg, self.run)]
        self.trainer = build_trainer(cfg, RunProgress(name, self.speed), loggers, callbacks)
        self.logger.current_epoch = lambda: self.trainer.current_epoch

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.trainer.world_size

    @property
    def device(self) -> torch.device:
        """Where this process trains."""
        return self.trainer.strategy.root_device

    def start(self, job: Job) -> Path:
        """Train, or go on, or find that all is done; return the folder.

        Raises:
            UserError: the folder holds something else, another process writes there, the
                checkpoint does not fit, or training diverges.
            SystemExit: a signal has ended the training; its code is that of the signal.
        """
        replay = REPEATED.get()
        if replay is not None:
            replay.run(self.trainer, job.model, job.data)
            return self.run.path
        if job.start is not None:
            require_fit(job.start, self.cfg, job.model)
        try:
            self._train(job)
        finally:
            self.run.close()
        return self.run.path

    def _train(self, job: Job) -> None:
        is_first = getattr(rank_zero_only, "rank", 0) == 0
        overwrite, resume = self.cfg.overwrite, self.cfg.auto_resume.enabled
        # A rank that another launcher has started decides as the first one does, or it would wait.
        found = (
            self.run.open(job.config, job.identity, job.origin, overwrite, resume)
            if is_first
            else self.run.look(job.identity, overwrite, resume)
        )
        if found is Found.OVER and self._is_whole():
            log.info("%s %s", self.run.path, self.run.read().ending)
            return
        if is_first:
            require_room(self.run.checkpoints, self.cfg, job.model)
            job.announce()
        planned, clock = self.cfg.max_epochs, self.clock
        saver = RunCheckpoint(self.run.checkpoints, _meta(job), self.cfg.checkpoint, planned, clock)
        own = None if found is Found.NEW else own_checkpoint(self.cfg, self.run, self.logger)
        saver.goes_on = self.speed.goes_on = own is not None
        self._saver = saver
        saver.is_stopped = lambda: self.signals.received is not None
        callbacks = [*job.callbacks, self._divergence(), saver]
        if job.start is not None and own is None:
            callbacks.insert(0, NewSchedule(job.start))
        self.trainer.callbacks += callbacks  # type: ignore[attr-defined]
        code = self._fit(job, own)
        if self.trainer.is_global_zero:
            self._write_down(job, saver, code)
        if code is not None:
            wait_for_ranks(self.trainer)
            raise SystemExit(code)

    def _is_whole(self) -> bool:
        """Whether a run that is over has the weights that it should have."""
        return not self.cfg.checkpoint.enabled or is_sound(self.run)

    def _divergence(self) -> DivergenceWatch:
        def newest() -> str | None:
            return next((path.name for path in own_checkpoints(self.run.checkpoints)), None)

        return DivergenceWatch(self.run.path, newest)

    def _fit(self, job: Job, own: str | None) -> int | None:
        """Train from the run's own checkpoint, another run's, or from nothing.

        Returns:
            The exit code of a signal that has ended it.
        """
        given = str(job.start.path) if job.start is not None else None
        self.signals.listen(self.trainer)
        try:
            self.trainer.fit(job.model, datamodule=job.data, ckpt_path=own or given)
        except SystemExit:  # of a signal, also as Lightning makes one
            if self.signals.code is None:
                raise
        except RuntimeError as error:
            if job.start is not None and own is None and "loading state_dict" in str(error):
                problem = str(error).splitlines()[-1].strip().rstrip(".")
                raise misfit(job.start, problem) from None
            refuse_if_out_of_memory(error, self.cfg)
            _refuse_metric(error)
            raise
        except MisconfigurationException as error:
            _refuse_metric(error)
            raise
        finally:
            self.signals.forget()
        return self.signals.code

    def _stop_within(self, trainer: pl.Trainer) -> None:
        assert self._saver is not None
        self._saver.save_within(trainer)

    def _write_down(self, job: Job, saver: RunCheckpoint, code: int | None) -> None:
        """How it ended, in run.json and in a line."""
        done = saver.progress
        facts: dict[str, Any] = {} if done is None else {"progress": done}
        far = f"after {done.epochs if done else 0} of {self.cfg.max_epochs} epochs"
        goes_on = "the same command continues" if done else "the same command starts anew"
        if code is not None:
            batches = self.signals.batches
            if batches:
                far += f" and {batches} of {self.trainer.num_training_batches} batches"
            log.warning("stopped by %s %s; %s.", self.signals.name, far, goes_on)
            if self.signals.received == signal.SIGUSR1:
                requeue()
        elif done is not None and done.is_complete:
            facts["finished"] = now()
        elif self.clock is not None and self.clock.is_up:
            log.warning(
                "stopped by max_time=%s %s; %s.", self.cfg.trainer["max_time"], far, goes_on
            )
        else:
            facts["stopped"] = why_stopped(self.trainer)
            log.warning("stopped by %s %s.", facts["stopped"], far)
        if code is None:
            seconds, rate = round(self.speed.elapsed, 1), round(self.speed.images_per_second, 1)
            facts.update(job.conclude(), seconds=seconds, images_per_second=rate)
        self.run.update(**facts)


def _refuse_metric(error: Exception) -> None:
    """Lightning's errors of a callback that monitors a metric which there is not, as ours."""
    text = " ".join(str(error).split())
    if "conditioned on metric" in text or "could not find the monitored key" in text:
        raise UserError(f"callbacks: {text}") from None


def _meta(job: Job) -> dict[str, Any]:
    """What a checkpoint says of itself, so that it can be opened without its folder."""
    config = OmegaConf.to_container(job.config, resolve=True)
    return {**to_plain(job.origin), "config": config, "identity": dict(job.identity)}
