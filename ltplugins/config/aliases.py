# SPDX-License-Identifier: MIT
"""Keys as users write them: Lightning's ``ckpt_path``, ``trainer.max_epochs``; ``health: true``."""

from typing import Any

from ltplugins.config.trainer import trainer_keys
from ltplugins.core.errors import UserError, nearest


def take_aliases(plain: dict[str, Any]) -> None:
    """Lightning's own names and the ``trainer`` block of its Hydra users become ours.

    A block ``health`` that does not say otherwise is on.

    What stands in the block goes before the same key at the top, which a file of ours has given.

    Raises:
        UserError: one key under both names with two values, or a block that is none.
    """
    if plain.get("ckpt_path") is not None:
        other = plain.get("resume_from_checkpoint")
        if other not in (None, plain["ckpt_path"]):
            raise UserError(
                f"ckpt_path and resume_from_checkpoint are the same key: got "
                f"{plain['ckpt_path']!r} and {other!r}. Leave one out."
            )
        plain["resume_from_checkpoint"] = plain["ckpt_path"]
    plain.pop("ckpt_path", None)
    if isinstance(plain.get("health"), bool):
        plain["health"] = {"enabled": plain["health"]}
    elif isinstance(plain.get("health"), dict):
        plain["health"].setdefault("enabled", True)
    block = plain.pop("trainer", None)
    if block is None:
        return
    if not isinstance(block, dict):
        raise UserError(
            f"trainer: expected a block of arguments of Lightning's Trainer, got {block!r}. They "
            f"also stand at the top: accelerator=gpu devices=4."
        )
    for key, value in block.items():
        if key not in {*trainer_keys(), "_target_"}:
            raise UserError(f"unknown key 'trainer.{key}'.{nearest(str(key), trainer_keys())}")
        if key != "_target_":
            plain[key] = value
