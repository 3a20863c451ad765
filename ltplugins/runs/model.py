# SPDX-License-Identifier: MIT
"""From a run folder or a checkpoint back to its config, its weights and its model.

Below the stages, because a method may need a trained run too: GML takes one as its teacher.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from ltplugins.config.resolve import check_method, resolve
from ltplugins.core.errors import UserError
from ltplugins.host.build import build_model

log = logging.getLogger(__name__)

RUN_FILE = "run.json"  # a folder that has it holds a run
LAST_CHECKPOINT = "checkpoints/last.ckpt"


@dataclass
class TrainedRun:
    """A trained method, opened for evaluation or as a teacher.

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
    state: dict[str, Tensor]
    epoch: int


def require_run(path: Path) -> None:
    """Refuse a folder without a run.

    Raises:
        UserError: no such folder, or no run in it.
    """
    if not (path / RUN_FILE).exists():
        raise UserError(
            f"{path} holds no run: expected run.json and checkpoints/ in it. Give the "
            f"output_dir of a pretraining, for example runs/demo/simclr."
        )


def open_run(path: str | Path) -> TrainedRun:
    """Open a run folder (its last checkpoint) or a ``.ckpt`` of ours or of solo-learn.

    Raises:
        UserError: nothing there, no checkpoint yet, a file that cannot be opened, no config.
    """
    path = Path(path)
    if path.is_dir():
        require_run(path)
        folder, file = path, path / LAST_CHECKPOINT
        if not file.exists():
            raise UserError(f"{path} has no checkpoint yet: its first epoch is not complete.")
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


def load_model(run: TrainedRun, num_classes: int, small_stem: bool) -> Any:
    """Build the run's method and load all weights that its inference needs.

    These are the backbone's and, where the method declares ``own_classifier``, everything but what
    it names in ``training_only``. The rest keeps its initial values.

    Args:
        num_classes: of the data it was trained on.
        small_stem: of the data's record, for where the weights do not show the stem.

    Raises:
        UserError: keys are missing, left over or of another shape; none is skipped in silence.
    """
    import ltplugins
    from ltplugins.host import HOST, METHODS

    ltplugins.register()
    check_method(run.cfg, METHODS)
    trained_with = run.meta.get("host", HOST.label)
    if trained_with != HOST.label:
        log.warning("trained with %s, evaluated with %s", trained_with, HOST.label)
    cfg = run.cfg.copy()
    cfg.data.num_samples = 1  # the method's per-image memory is not needed here
    cfg.data.num_classes = num_classes
    method = METHODS[cfg.method]
    if hasattr(method, "inference_config"):
        with open_dict(cfg):
            cfg = method.inference_config(cfg)
    model = build_model(cfg, 1, _has_small_stem(run.state, small_stem))
    _load(run, model.backbone, _below(run.state, "backbone."), f"backbone {cfg.backbone.name}")
    if getattr(model, "own_classifier", False):
        training_only = model.training_only
        weights = {k: v for k, v in run.state.items() if not k.startswith(training_only)}
        needed = {k for k in model.state_dict() if not k.startswith(training_only)}
        _load(run, model, weights, f"method {cfg.method}", needed)
    return model


def count_classes(run: TrainedRun) -> int:
    """How many classes a run was trained on: the outputs of its host's online classifier."""
    weight = run.state.get("classifier.weight")
    if weight is None:
        raise UserError(f"{run.checkpoint} does not show its number of classes: no classifier.")
    return len(weight)


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


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _has_small_stem(state: dict[str, Tensor], otherwise: bool) -> bool:
    """What the weights show; solo-learn's choice, by the data set's name, may not be the record's.

    A ResNet's small stem is a 3x3 convolution. timm's deep stems do not show it.
    """
    conv = state.get("backbone.conv1.weight")
    return otherwise if conv is None else conv.shape[-1] == 3


def _load(
    run: TrainedRun,
    module: torch.nn.Module,
    weights: dict[str, Tensor],
    name: str,
    needed: set[str] | None = None,
) -> None:
    """Load the weights, all of them and nothing else.

    Args:
        name: of what they are loaded into, for the message.
        needed: keys that must be there; None = all of the module's.
    """
    own = module.state_dict()
    other = [k for k, v in weights.items() if k in own and own[k].shape != v.shape]
    missing = [k for k in own if k not in weights and (needed is None or k in needed)]
    unexpected = [k for k in weights if k not in own]
    if other:
        problem = f"{len(other)} keys have another shape ({', '.join(other[:3])})"
    elif missing or unexpected:
        problem = (
            f"{len(missing)} keys missing ({', '.join(missing[:3])}), {len(unexpected)} left over "
            f"({', '.join(unexpected[:3])})"
        )
    else:
        module.load_state_dict(weights, strict=needed is None)
        return
    raise UserError(
        f"{run.checkpoint} does not fit {name}: {problem}. Was it trained with another stem or "
        f"backbone?"
    )
