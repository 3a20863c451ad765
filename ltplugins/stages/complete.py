# SPDX-License-Identifier: MIT
"""Words of a command line, for tab completion and help: keys, choices of groups, listed values.

Imports no torch: a completion is to come while the key is still down.
"""

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ltplugins.config.listeners import LOGGERS
from ltplugins.config.sections import (
    BackboneConfig,
    CheckpointSection,
    OptimizerConfig,
    RunKeys,
    SchedulerConfig,
    TrainerKeys,
)
from ltplugins.data.schema import DataConfig
from ltplugins.methods.registry import METHODS, compositions

_CONF = Path(__file__).parents[1] / "conf"
_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "backbone": BackboneConfig,
    "optimizer": OptimizerConfig,
    "scheduler": SchedulerConfig,
    "checkpoint": CheckpointSection,
}
_GROUPS = ("method", "data", "augmentations", "schedule", "eval")


def words(stage: str, prefix: str) -> list[str]:
    """What a word of a stage's command line that begins with ``prefix`` can become.

    Args:
        stage: pretrain, evaluate or balance.
        prefix: what is typed of the word.
    """
    key, is_there, _ = prefix.partition("=")
    offered = _values(stage, key) if is_there else _keys(stage)
    return sorted(word for word in set(offered) if word.startswith(prefix))


def all_keys(stage: str) -> list[str]:
    """Every key of a stage that is not a method's or an augmentation's, a line for each block."""
    blocks: dict[str, list[str]] = {}
    for word in words(stage, ""):
        block, _, name = word.removesuffix("=").rpartition(".")
        blocks.setdefault(block, []).append(name)
    return [f"{block or 'at the top'}: {', '.join(names)}" for block, names in blocks.items()]


def _keys(stage: str) -> Iterator[str]:
    if stage != "pretrain":
        yield from (f"{key}=" for key in _file_keys(stage))
        return
    yield from (f"{group}=" for group in _GROUPS)
    for keys in (RunKeys, TrainerKeys):
        yield from (f"{field.name}=" for field in dataclasses.fields(keys))
    yield from ("accelerator=", "precision=", "strategy=", "logger=", "callbacks=")
    for name, section in _SECTIONS.items():
        yield from (f"{name}.{field.name}=" for field in dataclasses.fields(section))


def _file_keys(stage: str) -> Iterator[str]:
    """The keys at the top of a stage's own file, as it lists them."""
    for line in (_CONF / f"{stage}.yaml").read_text(encoding="utf-8").splitlines():
        key, colon, _ = line.partition(":")
        if colon and key.isidentifier() and key not in ("hydra", "defaults", "run"):
            yield key


def _values(stage: str, key: str) -> Iterator[str]:
    if stage == "pretrain" and key in _GROUPS:
        names = [path.stem for path in (_CONF / key).glob("*.yaml")]
        if key == "method":
            wrapped = compositions()
            names = [n for n in names if n in METHODS or f"gh_{n}" in wrapped] + [*wrapped]
        yield from (f"{key}={name}" for name in names)
    elif key == "logger":
        yield from (f"{key}={name}" for name in LOGGERS)
    else:
        section, _, name = key.rpartition(".")
        cls: Any = _SECTIONS.get(section)
        hint = typing.get_type_hints(cls).get(name) if cls else None
        yield from (f"{key}={value}" for value in _listed(hint))


def _listed(hint: Any) -> list[str]:
    """The values of a Literal, and of true and false."""
    if hint is bool:
        return ["true", "false"]
    if typing.get_origin(hint) is Literal:
        return [str(value) for value in typing.get_args(hint)]
    return [value for arg in typing.get_args(hint) for value in _listed(arg)]
