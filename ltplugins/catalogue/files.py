# SPDX-License-Identifier: MIT
"""The files of an entry, by name, and the mapping in the first of them. Light: no torch."""

from pathlib import Path
from typing import Any

from ltplugins.core.errors import UserError
from ltplugins.core.records import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FACTS = "ltplugins"  # the block of config.json that is ours


def read_config(folder: Path) -> dict[str, Any]:
    """The mapping of ``config.json``.

    Raises:
        UserError: there is none.
    """
    path = folder / CONFIG
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a mapping, got {type(config).__name__}.")
    return config
