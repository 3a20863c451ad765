# SPDX-License-Identifier: MIT
"""Optimizers from torch and timm, schedules in closed form.

A closed-form schedule computes the rate from the step number alone, so that a resumed run has
exactly the rates of the unbroken one. LARS is timm's, spoken to with solo-learn's keys.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import timm.optim
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ltplugins.core.errors import UserError, nearest

Group = dict[str, Any]
TORCH_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
LARS_KEYS = {"eta": "trust_coeff", "clip_lr": "trust_clip"}
SCHEDULES = ("warmup_cosine", "step", "none")


def build_optimizer(
    name: str,
    groups: list[Group],
    *,
    lr: float,
    weight_decay: float,
    exclude_bias_n_norm_wd: bool = False,
    kwargs: dict[str, Any] | None = None,
) -> Optimizer:
    """Build the optimizer ``optimizer.name`` over the groups of ``learnable_params``.

    Args:
        name: sgd, adam, adamw (torch's), lars (timm's), or any other timm optimizer name.
        groups: each with "params" and optionally "name", "lr", "weight_decay", "static_lr".
        exclude_bias_n_norm_wd: no weight decay for biases and norms (1-D parameters).
        kwargs: further arguments of the optimizer.

    Raises:
        UserError: an unknown name (with the nearest) or unknown kwargs.
    """
    kwargs = dict(kwargs or {})
    groups = [{**group, "params": list(group["params"])} for group in groups]
    exclude_lars = name == "lars" and kwargs.pop("exclude_bias_n_norm", False)
    if exclude_bias_n_norm_wd or exclude_lars:
        groups = split_vectors(groups)
    if name == "lars":
        for group in groups:
            # timm adapts a group's rate if it has weight decay or always_adapt; solo-learn adapts
            # all but the excluded 1-D parameters.
            group["always_adapt"] = not (exclude_lars and group.get("vectors", False))
        kwargs = {LARS_KEYS.get(key, key): value for key, value in kwargs.items()}
    for group in groups:
        group.pop("vectors", None)
    try:
        return _optimizer_class(name)(groups, lr=lr, weight_decay=weight_decay, **kwargs)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"optimizer.kwargs: {name} does not take {kwargs}: {error}. Leave out what it does not "
            f"know: ~optimizer.kwargs.KEY on the command line."
        ) from error


def require_optimizer(name: str) -> str:
    """Return the name of an optimizer that there is.

    Raises:
        UserError: there is none of that name; the nearest is named.
    """
    known = [str(optimizer) for optimizer in timm.optim.list_optimizers()]
    if name not in (*TORCH_OPTIMIZERS, *known):
        own = [*TORCH_OPTIMIZERS, "lars"]
        hint = nearest(name, own) or nearest(name, known)
        raise UserError(
            f"unknown optimizer '{name}'.{hint} Valid: {', '.join(own)}, or any name in "
            "timm.optim.list_optimizers()."
        )
    return name


def require_schedule(name: str) -> str:
    """Return the name of a schedule that there is.

    Raises:
        UserError: there is none of that name; the nearest is named.
    """
    if name not in SCHEDULES:
        hint = nearest(name, SCHEDULES)
        raise UserError(f"unknown scheduler '{name}'.{hint} Valid: {', '.join(SCHEDULES)}.")
    return name


def _optimizer_class(name: str) -> Callable[..., Optimizer]:
    return TORCH_OPTIMIZERS.get(require_optimizer(name)) or timm.optim.get_optimizer_class(name)


def split_vectors(groups: list[Group]) -> list[Group]:
    """Split biases and norms (1-D parameters) off each group into one without weight decay.

    The new group is marked ``"vectors": True`` and named ``<name>_no_decay``.
    """
    out = []
    for group in groups:
        vectors = [p for p in group["params"] if p.ndim <= 1]
        others = [p for p in group["params"] if p.ndim > 1]
        if others:
            out.append({**group, "params": others})
        if vectors:
            extra = {"params": vectors, "weight_decay": 0, "vectors": True}
            if "name" in group:
                extra["name"] = f"{group['name']}_no_decay"
            out.append({**group, **extra})
    return out


def warmup_cosine(
    step: int, base: float, *, start: float, minimum: float, warmup: float, total: float
) -> float:
    """Linear from ``start`` to ``base`` over ``warmup`` steps, then a cosine to ``minimum``.

    Exactly ``base`` at ``warmup`` and exactly ``minimum`` at ``total`` and beyond.
    """
    if step < warmup:
        return start + (base - start) * step / warmup
    if step >= total:
        return minimum
    progress = (step - warmup) / (total - warmup)
    return minimum + (base - minimum) * (1 + math.cos(math.pi * progress)) / 2


def multi_step(step: int, base: float, *, milestones: Sequence[int], gamma: float = 0.1) -> float:
    """``base`` times ``gamma`` for each milestone that is reached."""
    return base * gamma ** sum(step >= milestone for milestone in milestones)


class ClosedFormLR(LRScheduler):
    """Sets each group's rate to ``curve(step, base)``; groups with ``static_lr`` keep theirs."""

    def __init__(self, optimizer: Optimizer, curve: Callable[[int, float], float]) -> None:
        self.curve = curve
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rates at ``self.last_epoch``, torch's name for the number of steps taken."""
        groups = zip(self.optimizer.param_groups, self.base_lrs, strict=True)
        return [
            base if group.get("static_lr") else self.curve(self.last_epoch, float(base))
            for group, base in groups
        ]

    def state_dict(self) -> dict[str, Any]:
        """The step count and rates; the curve comes from the config."""
        return {key: value for key, value in super().state_dict().items() if key != "curve"}


def build_schedule(
    optimizer: Optimizer,
    name: str,
    *,
    interval: str,
    total_steps: float,
    max_epochs: int,
    min_lr: float,
    warmup_start_lr: float,
    warmup_epochs: float,
    lr_decay_steps: Sequence[int] | None,
) -> dict[str, Any] | None:
    """Build Lightning's scheduler entry, or None for the schedule "none".

    Args:
        interval: "step" or "epoch", what one tick of warmup_cosine is; "step" ticks by epoch.
        total_steps: optimizer steps of the whole run, over all epochs.

    Raises:
        UserError: an unknown schedule, or one that lacks what it needs.
    """
    if name == "none":
        return None
    if name == "step":
        if not lr_decay_steps:
            raise UserError(
                "scheduler.lr_decay_steps: scheduler 'step' needs a list of epochs, such as "
                f"[60, 80]; got {lr_decay_steps!r}."
            )
        steps = partial(multi_step, milestones=list(lr_decay_steps))
        return {"scheduler": ClosedFormLR(optimizer, steps), "interval": "epoch", "frequency": 1}
    require_schedule(name)
    if not math.isfinite(total_steps):
        raise UserError(
            "scheduler 'warmup_cosine' must know where the run ends; set max_epochs or max_steps."
        )
    ticks_per_epoch = total_steps / max_epochs if interval == "step" else 1
    curve = partial(
        warmup_cosine,
        start=warmup_start_lr,
        minimum=min_lr,
        warmup=warmup_epochs * ticks_per_epoch,
        total=max_epochs * ticks_per_epoch,
    )
    return {"scheduler": ClosedFormLR(optimizer, curve), "interval": interval, "frequency": 1}
