# SPDX-License-Identifier: MIT
"""How a training ends before its last epoch: a limit of time, a limit of steps."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ltplugins.core.errors import UserError
from ltplugins.runs.facts import TRIAL

# As a shell counts them: 128 and the number of the signal.
CTRL_C, TERMINATED = 130, 143


class WallClock(Timer):
    """``max_time``: of each process anew, so that the same command goes on where time was up.

    Lightning's own timer keeps the time in the checkpoint, and would end the next process at once.

    Raises:
        UserError: text or a block that is no time.
    """

    def __init__(self, duration: str | dict[str, int]) -> None:
        try:
            super().__init__(duration, interval="step", verbose=False)
        except (MisconfigurationException, TypeError, ValueError):
            raise UserError(
                f"max_time: expected days:hours:minutes:seconds such as '00:12:00:00', or a block "
                f"such as {{hours: 12}}, got {duration!r}."
            ) from None

    @property
    def is_up(self) -> bool:
        """Whether the time is over."""
        left = self.time_remaining()
        return left is not None and left <= 0

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the time is that of a process."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing."""


def why_stopped(trainer: pl.Trainer) -> str:
    """What has ended a training for good before its last planned epoch."""
    if is_trial(trainer):
        return TRIAL
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"max_steps={trainer.max_steps}"
    early = [cb for cb in trainer.callbacks if getattr(cb, "stopped_epoch", 0)]  # type: ignore[attr-defined]
    return type(early[0]).__name__ if early else "a callback"


def is_trial(trainer: pl.Trainer) -> bool:
    """Whether ``fast_dev_run`` takes a few batches alone."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
