# SPDX-License-Identifier: MIT
"""No checkpoint of weights that are not finite: it is looked at before one replaces another."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ltplugins.core.errors import UserError


def require_finite(trainer: Trainer) -> None:
    """Refuse to save weights, buffers or optimiser state that hold NaN or infinity.

    It is found on the device and read once; every rank takes part and hears the same.

    Raises:
        UserError: the first names of what is not finite; the checkpoint before is kept.
    """
    found = dict(_state(trainer))
    is_finite = all_finite(found.values())
    if trainer.strategy.reduce_boolean_decision(is_finite, all=True):
        return
    names = [name for name, value in found.items() if not all_finite([value])]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    where = (
        f"{shown or 'another rank has some that'} {'are' if len(names) > 1 else 'is'} not finite"
    )
    raise UserError(diverged(trainer, trainer.global_step, where))


def diverged(trainer: Trainer, step: int, what: str, more: str = "") -> str:
    """The sentence of a training that has diverged, and its ways out.

    Args:
        step: of the optimiser, from 1.
        what: is not finite.
        more: of the batch, and what repeats it.
    """
    epoch = trainer.current_epoch
    kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "there is no checkpoint yet"
    return (
        f"training has diverged in epoch {epoch + 1} of {trainer.max_epochs}, after step {step}: "
        f"{what}.{more} {kept[0].upper()}{kept[1:]}. Lower optimizer.lr, lengthen "
        f"scheduler.warmup_epochs, or set gradient_clip_val, and give a new output_dir."
    )


def all_finite(values: Iterable[Tensor]) -> bool:
    """Whether all numbers of floating tensors are finite; one wait for each device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for value in values:
        if value.is_floating_point() or value.is_complex():
            by_device.setdefault(value.device, []).append(value.detach())
    return all(bool(finite(same)) for same in by_device.values())


def finite(values: list[Tensor]) -> Tensor:
    """Bool[] on the device of ``values``: whether all their numbers are finite; nothing waits."""
    return torch.stack([torch.isfinite(value).all() for value in values]).all()


def _state(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers as a checkpoint has them, and the optimisers' state."""
    for name, value in trainer.lightning_module.state_dict().items():
        if isinstance(value, Tensor):
            yield name, value
    for number, optimizer in enumerate(trainer.optimizers):
        for group, (_, state) in enumerate(optimizer.state.items()):
            yield from _tensors(f"optimizer {number}, parameter {group}", state)


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _tensors(f"{name}, {key}", inner)
