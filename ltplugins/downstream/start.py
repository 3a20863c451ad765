# SPDX-License-Identifier: MIT
"""What a fine-tuning starts from: a run's backbone, its network from scratch, or another."""

import logging
from dataclasses import dataclass

from torch import nn

from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError, install
from ltplugins.data.sources.records import DataRecord
from ltplugins.downstream.layers import as_timm, require_layers
from ltplugins.downstream.options import FinetuneConfig, LoraConfig
from ltplugins.eval.features import state_hash, weights_hash
from ltplugins.host.build import build_bare
from ltplugins.host.pretrained import load_pretrained
from ltplugins.runs.checkpoint import TrainedRun
from ltplugins.runs.facts import FirstStage
from ltplugins.runs.model import load_trained

log = logging.getLogger(__name__)


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


def start_from(
    first: TrainedRun | None, cfg: RunConfig, record: DataRecord, options: FinetuneConfig
) -> Start:
    """Build the backbone with its weights, and make it ready for the mode.

    Args:
        first: the run; None without one.
        cfg: of the fine-tuning; its ``backbone`` is built where the run's weights are not taken.
        record: of the data.

    Raises:
        UserError: weights that do not fit or cannot be had, layers that are not known, adapters for
            a network without such layers.
    """
    stage_1 = None
    if first is not None and options.backbone is None and options.weights == "run":
        model = load_trained(first, record)
        backbone, width = model.backbone, model.features_dim
        label = first.label
        stage_1 = FirstStage(str(first.path), first.epoch, state_hash(first.state))
    else:
        model = build_bare(cfg.host, record.small_stem)
        load_pretrained(model, cfg.host)
        backbone, width = model.backbone, model.features_dim
        label = cfg.backbone.name if cfg.backbone.pretrained else "random"
    weights = weights_hash(backbone)
    backbone.requires_grad_(options.mode in ("full", "lp_ft"))
    if options.layer_decay < 1:
        backbone = as_timm(backbone, cfg.backbone.name)
        require_layers(backbone, cfg.backbone.name)
    if options.mode == "lora":
        add_adapters(backbone, options.lora, cfg.backbone.name)
    return Start(backbone, width, label, weights, stage_1)


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
