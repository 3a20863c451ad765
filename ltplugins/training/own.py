# SPDX-License-Identifier: MIT
"""What a run goes on from: its own newest checkpoint that is whole."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import read_checkpoint
from ltplugins.runs.folder import RunFolder
from ltplugins.runs.metrics import MetricsLogger
from ltplugins.runs.places import LAST, STOPPED, own_checkpoints
from ltplugins.runs.seal import broken_seal

log = logging.getLogger(__name__)


def own_checkpoint(cfg: RunConfig, run: RunFolder, logger: MetricsLogger) -> str | None:
    """The folder's newest sound checkpoint, from which the run goes on; None without any.

    A damaged one is named, and the one before it taken.

    Raises:
        UserError: resuming is turned off and the folder has one; or all that it has are damaged.
    """
    candidates = own_checkpoints(run.checkpoints)
    if not candidates:
        return None
    if not cfg.auto_resume.enabled:
        raise UserError(
            f"{run.path} holds an interrupted run and auto_resume.enabled is false. Enable it to "
            f"go on, add overwrite=true to start anew, or set output_dir to a new folder."
        )
    path, content = _first_sound(candidates)
    _continue_metrics(logger, content)
    log.info("going on from %s", path)
    return str(path)


def is_sound(run: RunFolder) -> bool:
    """Whether the last checkpoint of a run that is over is there and as it was written.

    One that was removed on purpose, with all others, is not asked for.
    """
    candidates = own_checkpoints(run.checkpoints)
    if not candidates:
        return True
    last = run.checkpoints / LAST
    damage = broken_seal(last) if last.exists() else "it is gone"
    if damage is not None:
        log.warning("%s is damaged: %s. Its last epochs are trained again.", last, damage)
    return damage is None


def _first_sound(candidates: list[Path]) -> tuple[Path, Mapping[str, Any]]:
    damaged: list[str] = []
    for number, path in enumerate(candidates):
        try:
            content = read_checkpoint(path)
        except UserError as error:
            damaged.append(str(error))
            continue
        if path.name == STOPPED and number + 1 < len(candidates):
            later = _later(content, candidates[number + 1])
            if later is not None:
                return candidates[number + 1], later
        _tell(damaged, path, content)
        return path, content
    folder = candidates[0].parent.parent
    raise UserError(
        f"no checkpoint of {folder} can be opened, and a run that was there is not begun anew in "
        f"silence: {damaged[0]} Bring one back from a copy, or add overwrite=true to start anew."
    )


def _later(place: Mapping[str, Any], path: Path) -> Mapping[str, Any] | None:
    """The checkpoint of an epoch's end, if it is of after a place within an epoch.

    A process that is killed between its writing and the removal of the place leaves both.
    """
    try:
        epoch = read_checkpoint(path)
    except UserError:
        return None
    return epoch if epoch["global_step"] > place["global_step"] else None


def _tell(damaged: list[str], path: Path, content: Mapping[str, Any]) -> None:
    for text in damaged:
        log.warning("%s", text)
    if damaged or path.name not in (LAST, STOPPED):
        log.warning(
            "the run goes on from %s: %d epochs, %d steps; what came after is trained again.",
            path,
            content["epoch"] + 1,
            content["global_step"],
        )


def _continue_metrics(logger: MetricsLogger, content: Mapping[str, Any]) -> None:
    """Let the logger take over the rows that the checkpoint's run has written."""
    meta = content.get("ltplugins", {})
    last_epoch = {} if "within" in meta else meta.get("last_epoch", {})
    logger.continue_from(content["global_step"], content["epoch"], last_epoch)
