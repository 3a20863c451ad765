# SPDX-License-Identifier: MIT
"""``load_backbone``: a run, a checkpoint, an entry or a name, to a network that is ready to use."""

import os
from typing import Any

import timm
import torch
import torchvision
from omegaconf import OmegaConf
from torch import nn

from ltplugins.catalogue.files import CONFIG
from ltplugins.catalogue.store import entry_folder, is_zoo
from ltplugins.core.errors import UserError
from ltplugins.core.files import expanded
from ltplugins.data.augment.deterministic import EvalTransform
from ltplugins.data.augment.plain import eval_transform
from ltplugins.data.augment.schema import normalisation
from ltplugins.eval.features import preserved_rng
from ltplugins.host.builtin.backbones import RESNETS, build_backbone
from ltplugins.host.patches import fit_to_crops
from ltplugins.host.pretrained import library_weights
from ltplugins.host.stem import is_small
from ltplugins.runs.checkpoint import TrainedRun, is_entry_folder, open_run
from ltplugins.runs.model import known_record, load_trained
from ltplugins.runs.places import RUN_FILE
from ltplugins.zoo.backbone import Architecture, Backbone, Provenance
from ltplugins.zoo.entry import open_entry
from ltplugins.zoo.preprocess import timm_transform


def load_backbone(source: str | os.PathLike[str], *, pretrained: bool = True) -> Backbone:
    """Open a trained backbone, frozen, in eval mode, with its preprocessing.

    Nothing in a file is executed: weights are read as tensors and plain values alone. All random
    generators are left as they were.

    Args:
        source: a run's folder; a ``.ckpt`` of a run's or of solo-learn's; a folder that ``ltplugins
            export`` has written; an entry of a zoo, ``zoo://NAME``; or a name of torchvision's or
            timm's.
        pretrained: for a name, the weights of its library; False = random ones, a baseline.

    Returns:
        A module from Float[B 3 S S] to Float[B D] with ``transform``, ``num_features`` and
        ``skipped``.

    Raises:
        UserError: nothing there, a file that is damaged or does not fit, an unknown name, or no
            network for the weights of a name.
    """
    path = expanded(source)
    with preserved_rng():
        if is_zoo(source):
            return open_entry(entry_folder(os.fspath(source)))
        if path.is_dir() and is_entry_folder(path):
            return open_entry(path)
        if path.is_dir() and not (path / RUN_FILE).exists():
            raise UserError(
                f"{path} holds no model: expected a run's folder ({RUN_FILE} in it), or one that "
                f"ltplugins export has written ({CONFIG} in it)."
            )
        if path.exists():
            return _of_run(open_run(path))
        name = os.fspath(source)
        if os.sep in name or name.endswith((".ckpt", ".pth", ".pt", ".safetensors")):
            raise UserError(
                f"{name} does not exist. Give a run's folder, a .ckpt, an exported folder, an "
                f"entry of a zoo (zoo://NAME), or a name of torchvision's or timm's."
            )
        return _of_library(name, pretrained)


def _of_run(run: TrainedRun) -> Backbone:
    record = known_record(run)
    model = load_trained(run, record)
    # Training's memory format gives other last bits; the evaluation's is this one.
    net = model.backbone.to(memory_format=torch.contiguous_format)
    block = run.cfg.augmentations[0]
    transform = eval_transform(record, block.crop_size, *normalisation(block, record))
    fitted = fit_to_crops(run.cfg.host)
    kwargs: Any = OmegaConf.to_container(OmegaConf.create(fitted.backbone.get("kwargs") or {}))
    whole = run.whole_progress
    return Backbone(
        net,
        transform,
        model.features_dim,
        Architecture(run.cfg.backbone.name, kwargs, is_small(net)),
        Provenance(
            label=f"{run.label} ({run.cfg.name})",
            dataset=run.cfg.data.dataset,
            seed=run.cfg.seed,
            epochs=whole.epochs if whole else run.epoch,
            origin=run.origin,
        ),
        sorted(key for key in run.state if not key.startswith("backbone.")),
    )


def _of_library(name: str, pretrained: bool) -> Backbone:
    try:
        net, num_features = build_backbone(name, {})
    except UserError as error:
        hint = "" if "unknown" not in str(error) else f" And there is no file or folder {name}."
        raise UserError(f"{error}{hint}") from None
    skipped: list[str] = []
    if pretrained:
        weights = library_weights(name, {}, net)
        own = net.state_dict()
        skipped = sorted(weights.keys() - own.keys())
        net.load_state_dict({key: weights[key] for key in own})
    label = f"{name} of {'torchvision' if name in RESNETS else 'timm'}"
    words = label if pretrained else f"{label}, random weights"
    return Backbone(
        net, _library_transform(name, net), num_features, Architecture(name), Provenance(words),
        skipped,
    )  # fmt: skip


def _library_transform(name: str, net: nn.Module) -> EvalTransform:
    """The preprocessing that its library evaluates it with."""
    if name in RESNETS:
        weights: Any = torchvision.models.get_model_weights(name).DEFAULT
        preset = weights.transforms()
        return EvalTransform(
            preset.crop_size[0], preset.mean, preset.std, preset.resize_size[0],
            preset.interpolation.value,
        )  # fmt: skip
    return timm_transform(timm.data.resolve_model_data_config(net), name)
