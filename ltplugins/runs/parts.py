# SPDX-License-Identifier: MIT
"""What a checkpoint's content must look like before anything is made of it.

Its bytes may be whole and the file still be of another program, or written to do harm.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ltplugins.core.errors import UserError

_MOST_EPOCHS = 10**9
_EXTRA = "_extra_state"  # of a module's own, which may be anything


def require_content(content: Any, file: Path) -> dict[str, Any]:
    """Hold a checkpoint to the types of what every reader looks at.

    Args:
        content: as torch has read it.
        file: for the message.

    Raises:
        UserError: it is no checkpoint, or a part of it is of another type.
    """
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{file} is no checkpoint: it has no state_dict.")
    _require_state(content["state_dict"], file)
    epoch = content.get("epoch", 0)
    if isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 <= epoch < _MOST_EPOCHS:
        raise _wrong(file, "epoch", "a whole number of 0 or more", epoch)
    meta = content.get("ltplugins", {})
    for name, block in (("ltplugins", meta), ("ltplugins.config", _of(meta, "config"))):
        if not isinstance(block, Mapping) or not all(isinstance(key, str) for key in block):
            raise _wrong(file, name, "a block of keys", block)
    segment = meta.get("config", {}).get("segment", {"run": ""})
    if not isinstance(segment, Mapping) or "run" not in segment:
        raise _wrong(file, "ltplugins.config.segment", "a block with the run", segment)
    if not isinstance(meta.get("small_stem"), bool | None):
        raise _wrong(file, "ltplugins.small_stem", "true, false or null", meta["small_stem"])
    return content


def _of(block: Any, key: str) -> Any:
    return block.get(key, {}) if isinstance(block, Mapping) else {}


def _require_state(state: Any, file: Path) -> None:
    if not isinstance(state, Mapping):
        raise _wrong(file, "state_dict", "tensors by their names", state)
    for name, value in state.items():
        if not isinstance(name, str):
            raise _wrong(file, "state_dict", "tensors by their names", name)
        if not isinstance(value, Tensor) and not name.endswith(_EXTRA):
            raise _wrong(file, f"state_dict.{name[:80]}", "a tensor", value)


def _wrong(file: Path, key: str, expected: str, got: Any) -> UserError:
    shown = f"{got!r:.60}" if not isinstance(got, Tensor) else "a tensor"
    return UserError(
        f"{file} is no checkpoint of a training: {key}: expected {expected}, got {shown} "
        f"({type(got).__name__})."
    )
