# SPDX-License-Identifier: MIT
"""``ltplugins debug``: the step at which a run diverged, repeated and looked into."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.runs.folder import RunFolder
from ltplugins.training.faults.divergence import FILE, Divergence
from ltplugins.training.faults.replay import REPEATED, Replay


def debug(path: str | Path) -> Replay:
    """Repeat the step that a ``divergence.json`` names; show and return what was seen in it.

    Args:
        path: of the file, or of the run's folder.

    Raises:
        UserError: no such file, no run around it, or a step that cannot be repeated.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    found = Divergence.read(file)
    folder = RunFolder.existing(file.parent)
    replay = Replay(found, folder.path)
    token = REPEATED.set(replay)
    try:
        _train(folder.config())
    finally:
        REPEATED.reset(token)
    console = make_console()
    console.print(f"{found.place}, images {found.indexes[0][:8]}", highlight=False, markup=False)
    for line in replay.lines:
        console.print(f"  {line}", highlight=False, markup=False)
    return replay


def _train(cfg: DictConfig) -> None:
    """Call the stage that wrote this config."""
    if "segment" in cfg:
        raise UserError("a step of ltplugins segment cannot be repeated yet.")
    stage: Any
    if "finetune" in cfg:
        from ltplugins.stages.finetune import finetune as stage
    elif "balance" in cfg:
        from ltplugins.stages.balance import balance as stage
    else:
        from ltplugins.stages.pretrain import pretrain as stage
    block = next((cfg[name] for name in ("finetune", "balance") if name in cfg), cfg)
    stage(OmegaConf.create(OmegaConf.to_container(block, resolve=True)))
