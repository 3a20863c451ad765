# SPDX-License-Identifier: MIT
"""Signals end a training between two steps, on every rank alike, with a checkpoint of that place.

A handler only notes the signal: whatever it did itself would be done in the middle of a step.
After each step the ranks agree on whether one of them has got one, in a group of CPUs, so that no
GPU is waited for. A second signal ends the process at once.

SIGTERM (143) is what ``kill``, ``docker stop`` and schedulers send, SIGINT (130) is Ctrl-C. Under
SLURM, SIGUSR1 (138), which ``sbatch --signal=USR1@120`` asks for before a job's time is up, also
puts the job back into the queue.
"""

import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ltplugins.training.faults.ranks import end_on_purpose
from ltplugins.training.within import GoOnWithin

log = logging.getLogger(__name__)

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1"}


class Stopped(SystemExit):
    """A signal has ended the training; the code is that of the signal, as a shell counts."""


class Signals(Callback):
    """Ends a training by a signal.

    Args:
        save: writes the checkpoint within the epoch; not called at its end, which has its own.

    Attributes:
        received: the signal, once all ranks know of it; None before.
        batches: of the epoch that it ended within, 0 at an epoch's end.
    """

    def __init__(self, save: Callable[[Trainer], None]) -> None:
        self.save = save
        self.received: int | None = None
        self.batches = 0
        self._noted = 0
        self._before: dict[int, Any] = {}
        self._group: Any = None
        self._go_on = GoOnWithin()

    @property
    def code(self) -> int | None:
        """Exit code of the process, None where no signal came."""
        return None if self.received is None else 128 + self.received

    @property
    def name(self) -> str:
        """The signal in words."""
        return _NAMES[signal.Signals(self.received or 0)]

    def listen(self, trainer: Trainer) -> None:
        """Take the signals, and look at them after each step of ``trainer``."""
        trainer.callbacks.append(self._go_on)  # type: ignore[attr-defined]
        _silence(trainer)
        epoch_loop: Any = trainer.fit_loop.epoch_loop
        fit_loop: Any = trainer.fit_loop
        after_step, after_epoch = epoch_loop.on_advance_end, fit_loop.on_advance_end

        def step_ended(fetcher: Any) -> None:
            after_step(fetcher)
            if self._agreed(trainer) and not _is_last_batch(trainer):
                self._stop_within(trainer)

        def epoch_ended() -> None:
            after_epoch()
            if self.received is not None:
                raise Stopped(self.code)

        epoch_loop.on_advance_end = step_ended
        fit_loop.on_advance_end = epoch_ended
        if threading.current_thread() is threading.main_thread():
            wanted = [signal.SIGINT, signal.SIGTERM]
            wanted += [signal.SIGUSR1] if SLURMEnvironment.detect() else []
            self._before = {number: signal.signal(number, self._note) for number in wanted}

    def forget(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a group that talks without the GPUs, where the ranks' own does not."""
        if trainer.world_size > 1 and torch.distributed.get_backend() != "gloo":
            self._group = torch.distributed.new_group(backend="gloo")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """A second Ctrl-C."""
        if isinstance(exception, KeyboardInterrupt):
            self.received = signal.SIGINT

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted:
            self.received = number
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise Stopped(128 + number)
        self._noted = number

    def _agreed(self, trainer: Trainer) -> bool:
        """Whether a rank has got a signal; all hear the same, after the same step."""
        if self.received is not None:
            return True
        noted = self._noted
        if trainer.world_size > 1:
            everyone = torch.tensor(noted)
            torch.distributed.all_reduce(
                everyone, op=torch.distributed.ReduceOp.MAX, group=self._group
            )
            noted = int(everyone)
        if noted:
            self.received = noted
            end_on_purpose(trainer, 128 + noted)
        return bool(noted)

    def _stop_within(self, trainer: Trainer) -> None:
        epoch_loop = trainer.fit_loop.epoch_loop
        if epoch_loop._should_accumulate():
            return  # the gradients so far are in no checkpoint
        self.batches = epoch_loop.batch_progress.current.completed
        self.save(trainer)
        raise Stopped(self.code)


def requeue() -> None:
    """Put this SLURM job back into the queue, as Lightning does."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else ""
    job = job or os.environ.get("SLURM_JOB_ID", "")
    if not re.fullmatch(r"[0-9_]+", job):
        log.warning("the job is not put back into the queue: SLURM_JOB_ID is %r.", job)
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("job %s is not put back into the queue (%s): submit it again.", job, error)
    else:
        log.info("job %s is back in the queue.", job)


def _is_last_batch(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def _silence(trainer: Trainer) -> None:
    """Leave Lightning's own handling of SIGTERM out.

    Its handler talks to the other ranks from within the signal, and hangs if one does not listen;
    its loop asks the first rank before every step, and waits for the GPU to hear the answer.
    """
    connector: Any = trainer._signal_connector
    connector._sigterm_notifier_fn = lambda signum, frame: None
    epoch_loop: Any = trainer.fit_loop.epoch_loop
    if hasattr(epoch_loop, "_broadcast_sigterm_tensor"):
        epoch_loop._broadcast_sigterm_tensor = lambda: None
