# SPDX-License-Identifier: MIT
"""From a run folder or a checkpoint back to its config, its backbone and what it was trained on."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

import ltplugins
from ltplugins.config import check_method, resolve
from ltplugins.data.record import DataRecord
from ltplugins.errors import UserError
from ltplugins.stages.run_folder import RunFolder

log = logging.getLogger(__name__)


@dataclass
class TrainedRun:
    """A trained method, opened for evaluation.

    Attributes:
        path: the folder that results and the feature cache go to.
        checkpoint: the file.
        cfg: the resolved config it was trained with.
        meta: host, split and method, as stored in the checkpoint; empty for solo-learn's own.
        state: its whole ``state_dict``.
        epoch: completed epochs.
    """

    path: Path
    checkpoint: Path
    cfg: DictConfig
    meta: dict[str, Any]
    state: dict[str, torch.Tensor]
    epoch: int


def open_run(path: str | Path) -> TrainedRun:
    """Open a run folder (its last checkpoint) or a ``.ckpt`` of ours or of solo-learn.

    Raises:
        UserError: nothing there, no checkpoint yet, a file that cannot be opened, no config.
    """
    path = Path(path)
    if path.is_dir():
        run = RunFolder.existing(path)
        if run.last_checkpoint is None:
            raise UserError(f"{path} has no checkpoint yet: its first epoch is not complete.")
        folder, file = path, run.last_checkpoint
    elif path.is_file():
        file = path
        folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    else:
        raise UserError(f"{path} does not exist. Give a run folder or a .ckpt file.")
    content = _read_checkpoint(file)
    meta = content.get("ltplugins", {})
    cfg = _config_of(file, meta)
    before = meta.get("stage_1", {}).get("epochs", 0)  # of the run that a balancing started from
    epoch = before + int(content["epoch"]) + 1
    return TrainedRun(folder, file, cfg, meta, content["state_dict"], epoch)


def _read_checkpoint(file: Path) -> dict[str, Any]:
    try:
        # Tensors and plain values only: a checkpoint from elsewhere must not run code.
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{file} cannot be opened as a checkpoint ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200]})."
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{file} is no checkpoint: it has no state_dict.")
    return content


def _config_of(file: Path, meta: dict[str, Any]) -> DictConfig:
    if "config" in meta:
        return OmegaConf.create(meta["config"])
    beside = file.parent / "args.json"  # where solo-learn's Checkpointer puts it
    if beside.exists():
        stored = json.loads(beside.read_text(encoding="utf-8"))
        stored.pop("wandb_run_id", None)
        return resolve(stored)
    raise UserError(f"{file} holds no config, and there is no args.json of solo-learn's beside it.")


def load_backbone(run: TrainedRun, record: DataRecord) -> nn.Module:
    """Build the run's backbone and load its weights, all of them.

    Raises:
        UserError: keys are missing, left over or of another shape; none is skipped in silence.
    """
    from ltplugins.host import HOST, METHODS
    from ltplugins.stages.pretrain import build_model

    ltplugins.register()
    check_method(run.cfg, METHODS)
    trained_with = run.meta.get("host", HOST.label)
    if trained_with != HOST.label:
        log.warning("trained with %s, evaluated with %s", trained_with, HOST.label)
    cfg = run.cfg.copy()
    cfg.data.num_samples = 1  # the method's per-image memory is not needed here
    cfg.data.num_classes = record.num_classes
    prefix = "backbone."
    weights = {k.removeprefix(prefix): v for k, v in run.state.items() if k.startswith(prefix)}
    backbone = build_model(cfg, 1, _has_small_stem(weights, record)).backbone
    problem = _load(backbone, weights)
    if problem:
        raise UserError(
            f"{run.checkpoint} does not fit backbone {run.cfg.backbone.name}: {problem}. Was it "
            f"trained with another stem or backbone?"
        )
    return backbone


def load_method(run: TrainedRun, record: DataRecord) -> Any:
    """Build the run's whole method (heads, classifier, buffers) and load its weights, all of them.

    Raises:
        UserError: keys are missing, left over or of another shape.
    """
    from ltplugins.host import METHODS
    from ltplugins.stages.pretrain import build_model

    ltplugins.register()
    check_method(run.cfg, METHODS)
    prefix = "backbone."
    weights = {k.removeprefix(prefix): v for k, v in run.state.items() if k.startswith(prefix)}
    method = build_model(run.cfg, 1, _has_small_stem(weights, record))
    problem = _load(method, run.state)
    if problem:
        raise UserError(f"{run.checkpoint} does not fit method {run.cfg.method}: {problem}.")
    return method


def _has_small_stem(weights: dict[str, torch.Tensor], record: DataRecord) -> bool:
    """What the weights show; solo-learn's choice, by the data set's name, may not be the record's.

    A ResNet's small stem is a 3x3 convolution. timm's deep stems do not show it.
    """
    conv = weights.get("conv1.weight")
    return record.small_stem if conv is None else conv.shape[-1] == 3


def _load(backbone: nn.Module, weights: dict[str, torch.Tensor]) -> str:
    """Load the weights; return what does not fit, or an empty string."""
    own = backbone.state_dict()
    other = [k for k, v in weights.items() if k in own and own[k].shape != v.shape]
    if other:
        return f"{len(other)} keys have another shape ({', '.join(other[:3])})"
    missing, unexpected = backbone.load_state_dict(weights, strict=False)
    if not missing and not unexpected:
        return ""
    return (
        f"{len(missing)} keys missing ({', '.join(missing[:3])}), {len(unexpected)} left over "
        f"({', '.join(unexpected[:3])})"
    )
