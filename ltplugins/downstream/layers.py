# SPDX-License-Identifier: MIT
"""A backbone's parameters in groups with rates of their own: layer decay that a schedule follows.

timm's ``param_groups_layer_decay`` writes a factor ``lr_scale`` into its groups, which torch's and
Lightning's schedulers do not know. Here it becomes the group's rate, and schedules are factors of a
group's own rate: its warm-up start and its minimum are scaled with it.
"""

import math
from typing import Any

import timm
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.host.builtin.backbones import RESNETS
from ltplugins.host.builtin.optim import Group, warmup_cosine
from ltplugins.host.stem import apply_stem, has_stem, is_small

_LEAST = 3  # layers; with fewer there is nothing to decay along


def as_timm(backbone: nn.Module, name: str) -> nn.Module:
    """torchvision's ResNet as timm's of that name, whose layers are known; others as they are.

    Keys and features are the same, the small stem included.
    """
    if name not in RESNETS or hasattr(backbone, "group_matcher"):
        return backbone
    twin = timm.create_model(name, num_classes=0)
    if has_stem(backbone):
        apply_stem(twin, is_small(backbone))
    twin.load_state_dict(backbone.state_dict())
    return twin


def layer_groups(
    backbone: nn.Module, *, lr: float, weight_decay: float, layer_decay: float, name: str = ""
) -> list[Group]:
    """Groups of the parameters that are trained; norms and biases without weight decay.

    Args:
        lr: of the last layers; a layer further down has it times ``layer_decay`` once more.
        name: of the backbone, for the message.

    Raises:
        UserError: ``layer_decay`` below 1 for a backbone whose layers are not known.
    """
    if layer_decay == 1:
        groups = param_groups_weight_decay(backbone, weight_decay)
        return [{**group, "lr": lr} for group in groups if group["params"]]
    require_layers(backbone, name)
    groups = param_groups_layer_decay(backbone, weight_decay, layer_decay=layer_decay)
    return [_own_rate(group, lr) for group in groups]


def _own_rate(group: dict[str, Any], lr: float) -> Group:
    scale = group.pop("lr_scale")
    return {**group, "lr": lr * scale}


def require_layers(backbone: nn.Module, name: str) -> None:
    """Refuse a backbone whose parameters are all one layer to timm.

    Raises:
        UserError: it has no ``group_matcher``, or fewer than three layers.
    """
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is not None:
        from timm.models import group_parameters

        count = len(set(group_parameters(backbone, matcher(coarse=False), reverse=True).values()))
    else:
        count = 1
    if count < _LEAST:
        raise UserError(
            f"layer_decay: expected 1 for {name or type(backbone).__name__}, whose layers are not "
            f"known (timm sees {count}, {_LEAST} are needed). Set layer_decay=1, or take a timm "
            f"model that has a group_matcher, such as resnet18, convnext_tiny or a ViT."
        )


def rate(
    step: int,
    *,
    is_head: bool,
    probe: int,
    total: int,
    warmup: float,
    start: float,
    minimum: float,
    probe_rate: float,
) -> float:
    """The factor of a group's rate at a step: probe first, then warm-up and cosine.

    Args:
        is_head: of the classifier's group; the others have 0 while it is probed.
        probe: steps of the probe, along a cosine from ``probe_rate`` to 0.
        total: steps of all.
        warmup: steps of the warm-up, which begins where the probe ends.
        start, minimum: factors that the warm-up begins at and the cosine ends at.
    """
    if step < probe:
        return probe_rate * (1 + math.cos(math.pi * step / probe)) / 2 if is_head else 0.0
    return warmup_cosine(
        step - probe, 1.0, start=start, minimum=minimum, warmup=warmup, total=total - probe
    )
