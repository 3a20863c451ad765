# SPDX-License-Identifier: MIT
"""The small-image stem as a switch of its own, for any host.

A ResNet made for 224-pixel images halves the resolution twice before its first block; 32-pixel
images need the stem that keeps it. solo-learn swaps the stem by data set *name*, so that a CIFAR
folder given as ``custom`` trains with the wrong one. Here ``backbone.small_stem`` says it: true,
false, or null to take what the data set's record says.

What the switch means, by family:

- ResNets (torchvision's, timm's): small is ``conv1`` 3x3, stride 1, and no max-pool. timm's deep
  stems (three convolutions) keep their form, with stride 1 in the first.
- ViT, ConvNeXt and the rest have no such stem. Their resolution is set when they are built, by
  ``backbone.kwargs`` (``img_size`` and ``patch_size``); asking for the switch is an error.
"""

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ltplugins.core.errors import UserError


def configure_stem(model: nn.Module, cfg: DictConfig) -> bool:
    """Give ``model`` the stem that ``backbone.small_stem`` or the data set's record asks for.

    Call it after the method is built and before its optimizer is. Returns whether it is small.

    Raises:
        UserError: ``small_stem: true`` with a backbone that has no such stem.
    """
    explicit = OmegaConf.select(cfg, "backbone.small_stem")
    if explicit is None:
        small = record_wants_small_stem(OmegaConf.select(cfg, "data.dataset"))
        if not has_stem(_backbone(model)):
            return False
    else:
        small = bool(explicit)
        if not small and not has_stem(_backbone(model)):
            return False
    apply_stem(model, small)
    return small


def ensure_small_stem(model: nn.Module) -> None:
    """``apply_stem(model, small=True)``."""
    apply_stem(model, small=True)


def apply_stem(model: nn.Module, small: bool) -> None:
    """Swap the stem of ``model.backbone`` and keep ``model.momentum_backbone`` equal to it.

    A model that has the stem already is left untouched, weights included. A new convolution has
    PyTorch's default initialisation, as in solo-learn. ``model`` may also be a bare backbone.

    Raises:
        UserError: the backbone has no stem to swap (ViT, ConvNeXt, ...).
    """
    backbone = _backbone(model)
    if not has_stem(backbone):
        raise UserError(
            f"backbone.small_stem: {type(backbone).__name__} has no ResNet stem to swap. Set its "
            "resolution where it is built instead, for example backbone.kwargs: {img_size: 32, "
            "patch_size: 4}, and leave backbone.small_stem out."
        )
    if is_small(backbone) == small:
        return
    _swap(backbone, small)
    momentum = getattr(model, "momentum_backbone", None)
    if momentum is None:
        return
    _swap(momentum, small)
    with torch.no_grad():
        for online, twin in zip(
            backbone.conv1.parameters(), momentum.conv1.parameters(), strict=True
        ):
            twin.copy_(online)
            twin.requires_grad = False


def has_stem(backbone: nn.Module) -> bool:
    """True for ResNets: a first convolution, a max-pool and four stages."""
    return all(hasattr(backbone, name) for name in ("conv1", "bn1", "maxpool", "layer1", "layer4"))


def is_small(backbone: Any) -> bool:
    """True if the backbone is a ResNet that keeps the resolution up to its first stage."""
    if not has_stem(backbone):
        return False
    return _first_conv(backbone).stride == (1, 1) and isinstance(backbone.maxpool, nn.Identity)


def record_wants_small_stem(dataset: str | None) -> bool:
    """True if the record of data set ``dataset`` is one of small images; False if it has none."""
    from ltplugins.data.sources.records import RECORDS

    return dataset in RECORDS and RECORDS[dataset].small_stem


def _backbone(model: nn.Module) -> Any:
    return getattr(model, "backbone", model)


def _first_conv(backbone: Any) -> Any:
    conv = backbone.conv1
    return conv[0] if isinstance(conv, nn.Sequential) else conv


def _swap(backbone: Any, small: bool) -> None:
    backbone.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
    if isinstance(backbone.conv1, nn.Sequential):
        _first_conv(backbone).stride = (1, 1) if small else (2, 2)
        return
    old = backbone.conv1
    # Padding 2 widens the map by two pixels; 1 would keep it. It is what solo-learn trains with,
    # and features, checkpoints and published numbers are only comparable in its form.
    kernel, stride, padding = (3, 1, 2) if small else (7, 2, 3)
    backbone.conv1 = nn.Conv2d(
        old.in_channels,
        old.out_channels,
        kernel,
        stride,
        padding,
        bias=False,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
