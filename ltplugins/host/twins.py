# SPDX-License-Identifier: MIT
"""The EMA factor and the twins' last update in the checkpoint, one form for every host."""

from typing import Any

KEY = "momentum_tau"


def update_twins(model: Any) -> bool:
    """Move the twins and the factor if the optimizer has taken a step since; whether it had."""
    step = model.trainer.global_step
    if step <= model.last_step:
        return False
    for pair in model.momentum_pairs:
        model.momentum_updater.update(*pair)
    model.momentum_updater.update_tau(step, model.trainer.estimated_stepping_batches)
    model.last_step = step
    return True


def save_momentum(model: Any, checkpoint: dict[str, Any]) -> None:
    """Store the EMA factor of ``model.momentum_updater``, with all updates made.

    Within an epoch, callbacks save at the end of a batch before the model's own hook updates the
    twins; such a checkpoint would lack the update of its last step for good. It is made here then,
    and the hook sees that it is done.
    """
    if update_twins(model):
        # What was collected before this hook may be the values of before the update.
        state = checkpoint["state_dict"]
        state.update({n: p.detach() for n, p in model.named_parameters() if n in state})
    checkpoint[KEY] = float(model.momentum_updater.cur_tau)


def load_tau(model: Any, checkpoint: dict[str, Any]) -> None:
    """Restore it. A checkpoint without one (solo-learn's own) leaves the start value."""
    if KEY in checkpoint:
        model.momentum_updater.cur_tau = checkpoint[KEY]
