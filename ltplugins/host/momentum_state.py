# SPDX-License-Identifier: MIT
"""The EMA factor in the checkpoint, one form for every host."""

from typing import Any

KEY = "momentum_tau"


def save_tau(model: Any, checkpoint: dict[str, Any]) -> None:
    """Store the current EMA factor of ``model.momentum_updater``."""
    checkpoint[KEY] = float(model.momentum_updater.cur_tau)


def load_tau(model: Any, checkpoint: dict[str, Any]) -> None:
    """Restore it. A checkpoint without one (solo-learn's own) leaves the start value."""
    if KEY in checkpoint:
        model.momentum_updater.cur_tau = checkpoint[KEY]
