# SPDX-License-Identifier: MIT
"""What a run goes on from: its own newest checkpoint that is whole."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import LAST, STOPPED, own_checkpoints, read_checkpoint
from ltplugins.runs.folder import RunFolder
from ltplugins.runs.metrics import MetricsLogger
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
    for path in candidates:
        try:
            content = read_checkpoint(path)
        except UserError as error:
            damaged.append(str(error))
            continue
        for text in damaged:
            log.warning("%s", text)
        if damaged or path.name not in (LAST, STOPPED):
            steps, epochs = content["global_step"], content["epoch"] + 1
            log.warning(
                "the run goes on from %s: %d epochs, %d steps; what came after is trained again.",
                path,
                epochs,
                steps,
            )
        return path, content
    folder = candidates[0].parent.parent
    raise UserError(
        f"no checkpoint of {folder} can be opened, and a run that was there is not begun anew in "
        f"silence: {damaged[0]} Bring one back from a copy, or add overwrite=true to start anew."
    )


def _continue_metrics(logger: MetricsLogger, content: Mapping[str, Any]) -> None:
    """Let the logger take over the rows that the checkpoint's run has written."""
    last_epoch = content.get("ltplugins", {}).get("last_epoch", {})
    logger.continue_from(content["global_step"], content["epoch"], last_epoch)
