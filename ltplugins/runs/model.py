# SPDX-License-Identifier: MIT
"""From a run folder or a checkpoint back to its config, its weights and its model.

Below the stages, because a method may need a trained run too: GML takes one as its teacher.
"""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import open_dict
from torch import Tensor

from ltplugins.core.errors import UserError, first_sentence
from ltplugins.data.schema import BY_PATH
from ltplugins.data.sources.build import build_source
from ltplugins.data.sources.records import RECORDS, DataRecord, custom_record
from ltplugins.host import prepare
from ltplugins.host.build import build_bare, build_model
from ltplugins.host.check import check_method
from ltplugins.runs.checkpoint import TrainedRun

log = logging.getLogger(__name__)


def load_model(run: TrainedRun, num_classes: int, small_stem: bool) -> Any:
    """Build the run's method and load all weights that its inference needs.

    These are the backbone's and, where the method declares ``own_classifier``, everything but what
    it names in ``training_only``. The rest keeps its initial values. A fine-tuned run and an entry
    have no method any more: their model is the bare backbone.

    Args:
        num_classes: of the data it was trained on.
        small_stem: of the data's record, for where the weights do not show the stem.

    Raises:
        UserError: keys are missing, left over or of another shape; none is skipped in silence.
    """
    from ltplugins.host import METHODS

    host = prepare()
    known = _small_stem(run)
    has_small_stem = small_stem if known is None else known
    if run.is_finetuned or run.is_entry:
        with _by_its_config(run):
            bare = build_bare(run.cfg.host, has_small_stem)
        weights = _below(run.state, "backbone.")
        _load(run, bare.backbone, weights, f"backbone {run.cfg.backbone.name}")
        return bare
    check_method(run.cfg.method, METHODS)
    trained_with = run.origin.host if run.origin else host.label
    if trained_with != host.label:
        log.warning("trained with %s, evaluated with %s", trained_with, host.label)
    # The method's per-image memory is not needed here.
    cfg = run.cfg.with_counts(num_samples=1, num_classes=num_classes).host
    method = METHODS[cfg.method]
    with _by_its_config(run):
        if hasattr(method, "inference_config"):
            with open_dict(cfg):
                cfg = method.inference_config(cfg)
        model = build_model(cfg, 1, has_small_stem)
    _load(run, model.backbone, _below(run.state, "backbone."), f"backbone {cfg.backbone.name}")
    if getattr(model, "own_classifier", False):
        training_only = model.training_only
        weights = {k: v for k, v in run.state.items() if not k.startswith(training_only)}
        needed = {k for k in model.state_dict() if not k.startswith(training_only)}
        _load(run, model, weights, f"method {cfg.method}", needed)
    return model


@contextmanager
def _by_its_config(run: TrainedRun) -> Iterator[None]:
    """Within it a network is built of sizes that a file says, which nobody here has chosen.

    Raises:
        UserError: it cannot be.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever a network makes of wrong sizes
        raise UserError(
            f"{run.checkpoint}: {run.cfg.method} cannot be built by the config that it holds "
            f"({type(error).__name__}: {first_sentence(error)})."
        ) from error


def count_classes(run: TrainedRun) -> int:
    """How many classes a run was trained on: the outputs of its host's online classifier."""
    if run.is_entry and run.origin is not None:
        return len(run.origin.split.class_names)
    weight = run.state.get("classifier.weight")
    if weight is None:
        raise UserError(f"{run.checkpoint} does not show its number of classes: no classifier.")
    return len(weight)


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _small_stem(run: TrainedRun) -> bool | None:
    """What the weights or the checkpoint say; solo-learn's choice, by the data set's name, may not
    be the record's. None where neither does.

    A ResNet's small stem is a 3x3 convolution. timm's deep stems do not show it.
    """
    conv = run.state.get("backbone.conv1.weight")
    return run.small_stem if conv is None else conv.shape[-1] == 3


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


def load_alone(run: TrainedRun) -> Any:
    """:func:`load_trained` of a run whose images may be gone.

    Raises:
        UserError: see :func:`load_model`; or its stem is unknown without its images.
    """
    return load_trained(run, known_record(run))


def known_record(run: TrainedRun) -> DataRecord:
    """The record of the data that a run was trained on, from its checkpoint where that says enough.

    Raises:
        UserError: the training images would have to be looked at, and cannot be.
    """
    count = len(run.origin.split.class_names) if run.origin else count_classes(run)
    data = run.cfg.data
    # Arrays and sets of the hub have a record of their own, whatever the name.
    by_name = data.dataset not in BY_PATH or data.format in ("image_folder", "file_list")
    if by_name and data.dataset in RECORDS:
        return dataclasses.replace(RECORDS[data.dataset], num_classes=count)
    has_deep_stem = "backbone.conv1.0.weight" in run.state
    if not has_deep_stem or run.cfg.backbone.small_stem is not None or _small_stem(run) is not None:
        return custom_record(count)
    try:
        record = build_source(data, "train").record
    except UserError as error:
        raise UserError(
            f"{run.checkpoint} does not say whether its backbone has the small stem, and the size "
            f"of the training images, which decides it, cannot be looked up: {error}"
        ) from None
    return dataclasses.replace(record, num_classes=count)
