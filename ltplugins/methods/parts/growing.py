# SPDX-License-Identifier: MIT
"""A run whose epochs grow: schedules must know its true number of steps.

Lightning multiplies the first epoch's batches by the number of epochs. Learning rate and momentum
schedules that believe this reach their end too early, and a cosine then rises again.
"""

import math
from collections.abc import Callable
from typing import Any


def steps_until(epoch: float, batches: Callable[[int], int], trainer: Any) -> float:
    """Optimizer steps before ``epoch`` (0-based; 2.5 is the middle of the third epoch).

    Args:
        batches: of a rank, by epoch, before the trainer's limits.
        trainer: has ``limit_train_batches`` and ``accumulate_grad_batches``.
    """
    whole = int(epoch)
    steps = float(sum(_steps(batches(e), trainer) for e in range(whole)))
    return steps + (epoch - whole) * (_steps(batches(whole), trainer) if epoch > whole else 0)


def _steps(num_batches: int, trainer: Any) -> int:
    limit = trainer.limit_train_batches
    # As Lightning reads it: a whole number of batches, or a share of them.
    limited = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
    return math.ceil(limited / trainer.accumulate_grad_batches)


def tell_true_total(trainer: Any, total: int) -> None:
    """Make ``trainer.estimated_stepping_batches`` say ``total``.

    It is a property of the class, and every host's schedules and the progress bar read it; so the
    trainer gets a class of its own in which it is a number.
    """
    if trainer.max_steps != -1:
        total = min(total, trainer.max_steps)
    cls = type(trainer)
    trainer.__class__ = type(cls.__name__, (cls,), {"estimated_stepping_batches": total})
