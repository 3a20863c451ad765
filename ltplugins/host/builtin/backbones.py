# SPDX-License-Identifier: MIT
"""Backbones by name, without a head: torchvision's ResNets, timm's everything else.

``resnet18`` and ``resnet50`` are torchvision's, as in solo-learn; ``vit_*`` and ``convnext_tiny``
are solo-learn's names for timm models; any other timm name works as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torchvision
from timm.models import convnext, vision_transformer
from torch import nn

from ltplugins.core.errors import UserError, nearest

RESNETS: dict[str, Callable[..., Any]] = {
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
}
# Functions, not registry names: solo-learn, when imported, re-registers some of these names.
TIMM_ALIASES: dict[str, Callable[..., Any]] = {
    "vit_tiny": vision_transformer.vit_tiny_patch16_224,
    "vit_small": vision_transformer.vit_small_patch16_224,
    "vit_base": vision_transformer.vit_base_patch16_224,
    "convnext_tiny": convnext.convnext_tiny,
}


def build_backbone(name: str, kwargs: dict[str, Any]) -> tuple[nn.Module, int]:
    """Build the backbone and return it with the width of its features.

    Args:
        name: one of the names above or any timm model name.
        kwargs: handed to the model's constructor (``img_size``, ``patch_size``, ...).

    Raises:
        UserError: an unknown name (with the nearest), or kwargs that the model does not take.
    """
    try:
        if name in RESNETS:
            resnet = RESNETS[name](**kwargs)
            features_dim = resnet.fc.in_features
            resnet.fc = nn.Identity()
            return resnet, features_dim
        if name in TIMM_ALIASES:
            model = TIMM_ALIASES[name](num_classes=0, **kwargs)
        elif timm.is_model(name):
            model = timm.create_model(name, num_classes=0, **kwargs)
        else:
            raise unknown_backbone(name, [*RESNETS, *TIMM_ALIASES])
    except TypeError as error:
        raise UserError(
            f"backbone.kwargs: {name} does not take {dict(kwargs)}: {error}. "
            "Remove or rename the key; the valid ones are the model's constructor arguments."
        ) from error
    # Some timm models (MobileNetV3, ...) widen the features in a head that num_classes=0 keeps.
    return model, getattr(model, "head_hidden_size", None) or model.num_features


def unknown_backbone(name: str, own: Sequence[str]) -> UserError:
    """What to say of a name that neither ``own`` nor timm has, with the nearest that there is."""
    hint = nearest(name, [*own, *timm.list_models()])
    return UserError(
        f"unknown backbone '{name}'.{hint} Valid: {', '.join(own)}, or any name in "
        "timm.list_models()."
    )
