# SPDX-License-Identifier: MIT
"""What a fine-tuning starts from: a run's backbone, its network from scratch, or another."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn

from ltplugins.catalogue.store import is_zoo
from ltplugins.config.run import RunConfig
from ltplugins.config.sections import BackboneConfig
from ltplugins.core.errors import UserError, install
from ltplugins.core.files import expanded
from ltplugins.data.sources.records import DataRecord
from ltplugins.downstream.layers import as_timm, require_layers
from ltplugins.downstream.options import FinetuneConfig, LoraConfig
from ltplugins.eval.features import preserved_rng, state_hash, weights_hash
from ltplugins.host.build import build_bare
from ltplugins.host.pretrained import load_pretrained
from ltplugins.runs.checkpoint import TrainedRun
from ltplugins.runs.facts import FirstStage
from ltplugins.runs.model import load_trained
from ltplugins.zoo.backbone import Backbone
from ltplugins.zoo.load import load_backbone


@dataclass(frozen=True)
class Start:
    """A backbone that is ready to be trained on.

    Attributes:
        backbone: Float[B 3 S S] -> Float[B D], or [B D 1 1].
        width: D.
        label: what results call it by: the run's method, ``random``, or the network's name.
        weights: their hash.
        stage_1: the run that they are of; None for others.
    """

    backbone: nn.Module
    width: int
    label: str
    weights: str
    stage_1: FirstStage | None = None


def opened(options: FinetuneConfig) -> tuple[FinetuneConfig, Backbone | None]:
    """The options with the architecture of what ``backbone.name`` is a path of, and that backbone.

    A path is an exported folder (``local-dir:`` before it or not), a run's, a checkpoint, or
    ``zoo://NAME``; any other name stays what it is.

    Raises:
        UserError: nothing there, or a file that is damaged.
    """
    name = options.backbone.name if options.backbone is not None else ""
    path = expanded(name.removeprefix("local-dir:"))
    if not name or not (is_zoo(name) or name.startswith("local-dir:") or path.exists()):
        return options, None
    found = load_backbone(name if is_zoo(name) else path)
    what = found.architecture
    block = BackboneConfig(what.name, dict(what.kwargs), what.small_stem or None)
    return dataclasses.replace(options, backbone=block), found


def start_from(
    first: TrainedRun | None,
    given: Backbone | None,
    cfg: RunConfig,
    record: DataRecord,
    options: FinetuneConfig,
) -> Start:
    """Build the backbone with its weights, and make it ready for the mode.

    Args:
        first: the run; None without one.
        given: what is taken in the place of its backbone.
        cfg: of the fine-tuning; its ``backbone`` is built where the run's weights are not taken.
        record: of the data.

    Raises:
        UserError: weights that do not fit or cannot be had, layers that are not known, adapters for
            a network without such layers.
    """
    stage_1 = None
    if given is not None:
        backbone, width, origin = given.net, given.num_features, given.provenance.origin
        label = given.provenance.label if origin is None else origin.label or origin.method
    elif first is not None and options.backbone is None and options.weights == "run":
        model = load_trained(first, record)
        backbone, width = model.backbone, model.features_dim
        label = first.label
        run = str(options.run) if first.is_entry else str(first.path)
        stage_1 = FirstStage(run, first.epoch, state_hash(first.state))
    else:
        model = build_bare(cfg.host, record.small_stem)
        load_pretrained(model, cfg.host)
        backbone, width = model.backbone, model.features_dim
        label = cfg.backbone.name if cfg.backbone.pretrained else "random"
    _require_size(backbone, cfg)
    weights = weights_hash(backbone)
    backbone.requires_grad_(options.mode in ("full", "lp_ft"))
    if options.layer_decay < 1:
        backbone = as_timm(backbone, cfg.backbone.name)
        require_layers(backbone, cfg.backbone.name)
    if options.mode == "lora":
        add_adapters(backbone, options.lora, cfg.backbone.name)
    return Start(backbone, width, label, weights, stage_1)


def _require_size(backbone: nn.Module, cfg: RunConfig) -> None:
    """Refuse a network, such as a ViT of another image size, that does not take the crops."""
    size = cfg.augmentations[0].crop_size
    try:
        with preserved_rng(), torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"backbone.name: {cfg.backbone.name} does not take crops of {size} pixels "
            f"({' '.join(str(error).split())[:120]}). Set augmentations to crops of its size, or "
            f"backbone.kwargs (img_size)."
        ) from None


def add_adapters(backbone: nn.Module, lora: LoraConfig, name: str) -> None:
    """Put low-rank adapters beside the linear layers of these names; they alone are trained.

    Raises:
        UserError: the backbone has no such layer, or peft is not installed.
    """
    names = [key for key, m in backbone.named_modules() if isinstance(m, nn.Linear)]
    found = [key for key in names if key.rpartition(".")[2] in lora.layers]
    if not found:
        known = sorted({key.rpartition(".")[2] for key in names})
        which = f"its linear layers are {', '.join(known)}" if known else "it has no linear layer"
        raise UserError(
            f"mode: expected linear, full or lp_ft for {name}, got lora, which adapts the layers "
            f"{', '.join(lora.layers)} of a ViT; {which}. Set mode=lp_ft"
            f"{', or lora.layers' if known else ''}."
        )
    try:
        from peft import LoraConfig as Adapters
        from peft import inject_adapter_in_model
    except ImportError:
        raise UserError(f"mode=lora needs peft: {install('lora')}") from None
    inject_adapter_in_model(
        Adapters(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=found
        ),
        backbone,
    )
