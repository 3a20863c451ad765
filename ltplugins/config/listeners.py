# SPDX-License-Identifier: MIT
"""``logger`` and ``callbacks``: names, or blocks with the ``_target_`` of Hydra's instantiate.

Both may be a list, one entry, or a block of named entries, as Lightning-Hydra configs have them.
What a block makes is made where a training is set up; reading a config runs no code of a user's.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.core.errors import UserError, unknown

LOGGERS = ("csv", "tensorboard", "wandb", "mlflow")
Block = Mapping[str, Any]


def parse_loggers(given: Any) -> tuple[str | Block, ...]:
    """The loggers beside metrics.csv, which is always written.

    Raises:
        UserError: an unknown name, or something that is neither a name nor a block.
    """
    if given is False:
        raise UserError(
            "logger: expected names or blocks, got False. Leave it out: metrics.csv is written in "
            "any case."
        )
    entries = _entries("logger", [] if given is True else given)
    for entry in entries:
        if isinstance(entry, str) and entry not in LOGGERS:
            raise unknown("logger", entry, LOGGERS)
    return tuple(entry for entry in entries if entry != "csv")


def leave_named_loggers(cfg: DictConfig) -> None:
    """Take the loggers that are blocks out of a config that a later stage goes on with.

    A run may come from a stranger, and a block names what is called.
    """
    plain: Any = OmegaConf.to_container(cfg)
    if "logger" in plain:
        cfg.logger = [one for one in parse_loggers(plain["logger"]) if isinstance(one, str)]


def parse_callbacks(given: Any) -> tuple[Block, ...]:
    """The callbacks beside those of every training.

    Raises:
        UserError: something else than blocks.
    """
    entries = _entries("callbacks", given)
    for entry in entries:
        if isinstance(entry, str):
            raise UserError(
                f"callbacks: expected blocks with a _target_ such as "
                f"[{{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val_acc1}}], "
                f"got {entry!r}. Write it as such a block."
            )
    return tuple(entry for entry in entries if not isinstance(entry, str))


def _entries(key: str, given: Any) -> list[str | Block]:
    """A list of entries from any of the forms; entries that are null are left out."""
    if given is None:
        return []
    if isinstance(given, Mapping) and "_target_" not in given:
        given = list(given.values())
    entries = [e for e in (given if isinstance(given, list) else [given]) if e is not None]
    for entry in entries:
        target = entry.get("_target_") if isinstance(entry, Mapping) else entry
        if not isinstance(target, str) or not target:
            raise UserError(
                f"{key}: expected a name or a block with a _target_, the dotted path of a class, "
                f"got {entry!r}. Add its _target_, or leave it out."
            )
    return entries
