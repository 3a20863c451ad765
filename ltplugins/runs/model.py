# SPDX-License-Identifier: MIT
"""From a run folder or a checkpoint back to its config, its weights and its model.

Below the stages, because a method may need a trained run too: GML takes one as its teacher.
"""

import logging
from typing import Any

import torch
from omegaconf import open_dict
from torch import Tensor, nn

from ltplugins.core.errors import UserError
from ltplugins.data.sources.records import DataRecord
from ltplugins.host import prepare
from ltplugins.host.build import build_model
from ltplugins.host.check import check_method
from ltplugins.runs.checkpoint import TrainedRun

log = logging.getLogger(__name__)


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
    from ltplugins.host import METHODS

    host = prepare()
    check_method(run.cfg.method, METHODS)
    trained_with = run.origin.host if run.origin else host.label
    if trained_with != host.label:
        log.warning("trained with %s, evaluated with %s", trained_with, host.label)
    # The method's per-image memory is not needed here.
    cfg = run.cfg.with_counts(num_samples=1, num_classes=num_classes).host
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


def load_trained(run: TrainedRun, record: DataRecord) -> Any:
    """The run's model with all weights that its inference needs; see ``load_model``."""
    return load_model(run, record.num_classes, record.small_stem)


def load_backbone(run: TrainedRun, record: DataRecord) -> nn.Module:
    """Load the backbone of a run, without heads and online classifier.

    Raises:
        UserError: keys are missing, left over or of another shape; none is skipped in silence.
    """
    return load_trained(run, record).backbone
