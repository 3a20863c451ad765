# SPDX-License-Identifier: MIT
"""Whether a run's folder can be written and has room, found out before the first epoch is trained.

An estimate: of a checkpoint are known the weights and buffers that the model has now; memories of
every image, which a method allocates later, come on top. A quota does not show in what a disk says.
"""

import logging
import math
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.core.files import temporary

log = logging.getLogger(__name__)

# Numbers of an optimiser for each of a weight; one, the momentum, where it is not said here.
_KEPT = {"adam": 2, "adamw": 2}
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def require_room(folder: Path, cfg: RunConfig, model: Any) -> None:
    """Refuse a folder in which no checkpoint can ever be written; warn where not all will fit.

    Args:
        folder: of the checkpoints.
        cfg: how many are kept, of which optimiser.
        model: that is trained.

    Raises:
        UserError: nothing can be written there, or there is less room than the weights take.
    """
    _require_writable(folder)
    if not cfg.checkpoint.enabled:
        return
    weights, one = checkpoint_bytes(model, cfg.optimizer.name)
    free = shutil.disk_usage(folder).free
    there = sum(path.stat().st_size for path in folder.glob("*.ckpt"))
    if free < weights:
        raise UserError(
            f"output_dir: expected room for a checkpoint of {_size(one)} in {folder}, got a disk "
            f"with {_size(free)} free. Make room, or set output_dir to another disk."
        )
    count = _count(cfg)
    if free + there < count * one:
        fewer = "checkpoint.keep_prev=false" if cfg.checkpoint.keep_prev else "another output_dir"
        log.warning(
            "%s has %s free, and %d checkpoints of %s are to be written there: the run will end "
            "when the disk is full. Make room, or set %s.",
            folder,
            _size(free),
            count,
            _size(one),
            fewer,
        )


def checkpoint_bytes(model: Any, optimizer: str) -> tuple[int, int]:
    """Of weights and buffers alone, and with the state of an optimiser."""
    tensors = [value for value in model.state_dict().values() if isinstance(value, Tensor)]
    weights = sum(_bytes(value) for value in tensors)
    trained = sum(_bytes(p) for p in model.parameters() if p.requires_grad)
    return weights, weights + _KEPT.get(optimizer, 1) * trained


def _count(cfg: RunConfig) -> int:
    """Checkpoints that lie there at the same time: the last, those that are kept, one half written.

    Each kept epoch has a file of its own beside ``last.ckpt``.
    """
    section = cfg.checkpoint
    if section.keep_prev:
        return 2 + math.ceil(cfg.max_epochs / section.frequency)
    saves = math.ceil(cfg.max_epochs / section.frequency)
    return min(saves, 2 + section.previous)


def _require_writable(folder: Path) -> None:
    probe = temporary(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"output_dir: expected a folder that can be written, got {folder} ({error.strerror}). "
            f"Set output_dir to another."
        ) from None


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _size(count: float) -> str:
    """Bytes as a user reads them.

    >>> _size(1234567), _size(2), _size(3.2e10)
    ('1.2 MB', '0.0 kB', '32.0 GB')
    """
    scale, unit = next(((s, u) for s, u in _UNITS if count >= s), _UNITS[-1])
    return f"{count / scale:.1f} {unit}"
