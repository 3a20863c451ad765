# SPDX-License-Identifier: MIT
"""An entry of the zoo as something to go on from: its weights, and the config it was trained by.

An entry is a folder of ``config.json`` and ``model.safetensors``; our facts stand in the former
under ``ltplugins``. Nothing in it is executed or unpickled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ltplugins.catalogue.files import CONFIG, FACTS, WEIGHTS, read_config
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.core.files import sha256
from ltplugins.core.ranges import AtLeast
from ltplugins.core.records import from_plain
from ltplugins.core.schema import check
from ltplugins.runs.facts import VERSION, Origin

# Keys of a config that say where and on what a run was, not what it was. What would be run or
# written to is among them: an entry comes from a stranger.
PLACES = (
    "accelerator",
    "callbacks",
    "default_root_dir",
    "devices",
    "logger",
    "output_dir",
    "overwrite",
    "profiler",
    "resume_from_checkpoint",
    "wandb",
)


@dataclass(frozen=True)
class TrainedEntry:
    """What an entry says of its training.

    Attributes:
        file: of the weights.
        cfg: that they were trained with.
        origin: method, host and split.
        epochs: that they were trained.
        small_stem: whether the network keeps the resolution up to its first stage.
        state: its weights, under ``backbone.`` as in a checkpoint.
    """

    file: Path
    cfg: RunConfig
    origin: Origin
    epochs: int
    small_stem: bool
    state: dict[str, Tensor]


def read_entry(folder: Path) -> TrainedEntry:
    """Open an entry that says by which config it was trained.

    Raises:
        UserError: it does not say it, or a file is absent or damaged.
    """
    file = folder / CONFIG
    block = read_config(folder).get(FACTS)
    zoo = _given(block, "zoo", dict | None, file) if isinstance(block, dict) else None
    config = _given(zoo, "config", dict | None, file) if zoo else None
    if not isinstance(block, dict) or not config or "origin" not in block:
        raise UserError(
            f"{file} says nothing of a training: expected an entry of a zoo. Of any "
            f"other exported folder features, segment and backbone.name of finetune take the "
            f"weights."
        )
    epochs = _given(block, "epochs", Annotated[int, AtLeast(0)] | None, file)
    small_stem = _given(block, "small_stem", bool | None, file)
    weights = read_weights(folder / WEIGHTS, _given(block, "sha256", str | None, file))
    cfg = resolve({key: value for key, value in config.items() if key not in PLACES})
    return TrainedEntry(
        folder / WEIGHTS,
        cfg,
        from_plain(Origin, block["origin"], file, VERSION),
        epochs or cfg.max_epochs,
        bool(small_stem),
        {f"backbone.{key}": value for key, value in weights.items()},
    )


def _given(block: dict[str, Any], key: str, hint: Any, file: Path) -> Any:
    """A value of a stranger's file, of the type that it is to have."""
    return check(block.get(key), hint, f"{file}: {FACTS}, {key}")


def read_weights(file: Path, expected: str | None) -> dict[str, Tensor]:
    """The tensors of a safetensors file; those kept in float16 as float32, which networks have.

    Args:
        file: of the weights.
        expected: its sha256; None = it is not known.

    Raises:
        UserError: it is absent or damaged.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing: the entry has no weights. Export or fetch it again.")
    if expected is not None and sha256(file) != expected:
        raise UserError(
            f"{file} is damaged: its sha256 is not {expected}, which {CONFIG} says. Export or "
            f"fetch it again."
        )
    try:
        found = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be opened as safetensors ({error}).") from None
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in found.items()}
