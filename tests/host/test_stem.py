# SPDX-License-Identifier: MIT
"""The small-image stem: what is swapped, that it is done once, that the momentum twin follows."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.host.stem import (
    apply_stem,
    configure_stem,
    ensure_small_stem,
    is_small,
    record_wants_small_stem,
)
from tests.kit.hosts import host_methods, make_batch, make_cfg, needs_solo, tiny_cfg


def resnet18() -> nn.Module:
    return torchvision.models.resnet18()


def shapes(conv: nn.Conv2d) -> tuple[Any, ...]:
    return conv.kernel_size, conv.stride, conv.padding, conv.bias


def test_there_and_back() -> None:
    backbone: Any = resnet18()
    assert not is_small(backbone)
    ensure_small_stem(backbone)
    assert is_small(backbone)
    assert shapes(backbone.conv1) == ((3, 3), (1, 1), (2, 2), None)  # solo-learn's own form
    assert isinstance(backbone.maxpool, nn.Identity)
    apply_stem(backbone, small=False)
    assert shapes(backbone.conv1) == ((7, 7), (2, 2), (3, 3), None)
    assert isinstance(backbone.maxpool, nn.MaxPool2d)


@pytest.mark.parametrize("name", ["resnet10t", "test_resnet"])
def test_timm_resnets(name: str) -> None:
    backbone: Any = timm.create_model(name, num_classes=0)
    ensure_small_stem(backbone)
    assert is_small(backbone)
    assert backbone(torch.randn(2, 3, 16, 16)).shape == (2, backbone.num_features)


def test_momentum_twin_follows() -> None:
    model: Any = host_methods("builtin")["byol"](tiny_cfg("byol", data__dataset="none"))
    assert not is_small(model.backbone)
    ensure_small_stem(model)
    assert is_small(model.momentum_backbone)
    pairs = zip(model.backbone.parameters(), model.momentum_backbone.parameters(), strict=True)
    for online, twin in pairs:
        assert torch.equal(online, twin)
        assert online.requires_grad
        assert not twin.requires_grad


def test_second_time_changes_nothing() -> None:
    model: Any = host_methods("builtin")["byol"](tiny_cfg("byol"))
    ensure_small_stem(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parts = list(model.modules())
    ensure_small_stem(model)
    assert [id(m) for m in parts] == [id(m) for m in model.modules()]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("dataset", "switch", "small"),
    [
        ("cifar10", None, True),
        ("cifar100", None, True),
        ("custom", None, False),
        ("custom", True, True),
        ("cifar10", False, False),
    ],
)
def test_the_switch_wins_over_the_record(dataset: str, switch: bool | None, small: bool) -> None:
    cfg = tiny_cfg("simclr", data__dataset=dataset, backbone__small_stem=switch)
    model = host_methods("builtin")["simclr"](cfg)
    assert is_small(model.backbone) == small
    assert configure_stem(model, cfg) == small


def test_the_switch_works_on_solo() -> None:
    """solo-learn chooses by name; the switch corrects it after the build, twin included."""
    cfg = make_cfg("byol", data__dataset="custom")
    model = host_methods("solo")["byol"](cfg)
    assert not is_small(model.backbone)
    cfg.backbone.small_stem = True
    configure_stem(model, cfg)
    assert is_small(model.backbone)
    assert is_small(model.momentum_backbone)
    assert torch.equal(model.backbone.conv1.weight, model.momentum_backbone.conv1.weight)
    assert not model.momentum_backbone.conv1.weight.requires_grad
    out = model.base_training_step(make_batch()[1][0], torch.zeros(4, dtype=torch.long))
    assert out["z"].shape == (4, 8)


test_the_switch_works_on_solo.pytestmark = needs_solo  # type: ignore[attr-defined]


def test_no_stem_to_swap() -> None:
    vit = timm.create_model("test_vit", num_classes=0)
    with pytest.raises(
        UserError, match=r"VisionTransformer has no ResNet stem to swap.*patch_size"
    ):
        ensure_small_stem(vit)
    automatic = tiny_cfg("simclr", data__dataset="cifar10")
    assert configure_stem(vit, automatic) is False  # not asked for: nothing to do, nothing to say
    with pytest.raises(UserError, match="no ResNet stem"):
        configure_stem(vit, tiny_cfg("simclr", backbone__small_stem=True))


def test_records() -> None:
    assert record_wants_small_stem("cifar100")
    assert not record_wants_small_stem("imagenet")
    assert not record_wants_small_stem(None)
