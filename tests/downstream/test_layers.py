# SPDX-License-Identifier: MIT
"""Layer decay that decays: rates differ after scheduler steps, warm-up and minimum included."""

from functools import partial

import pytest
import timm
import torch
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.downstream.layers import as_timm, layer_groups, rate
from ltplugins.host.builtin.backbones import build_backbone
from ltplugins.host.stem import apply_stem

SCHEDULE = {"probe": 0, "total": 20, "warmup": 5, "start": 0.1, "minimum": 0.01, "probe_rate": 1.0}


def groups_of(model, decay=0.5, lr=1.0):
    return layer_groups(model, lr=lr, weight_decay=0.1, layer_decay=decay)


def rates_along(groups, steps):
    """Each group's rates from step 0 on, under a scheduler."""
    optimizer = torch.optim.SGD(groups)
    factors = partial(rate, is_head=False, **SCHEDULE)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    rows = []
    for _ in range(steps):
        rows.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return list(zip(*rows, strict=True))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_rates_differ_at_every_step(name):
    model = timm.create_model(name, num_classes=0)
    groups = groups_of(model)
    assert len({group["lr"] for group in groups}) >= 3
    assert all("lr_scale" not in group for group in groups)
    curves = rates_along(groups, 25)
    top = max(curves, key=lambda curve: curve[5])
    low = min(curves, key=lambda curve: curve[5])
    factor = low[5] / top[5]
    assert factor < 0.3
    # Warm-up start, peak, middle and minimum alike.
    for step in (0, 3, 5, 12, 20, 24):
        assert low[step] == pytest.approx(factor * top[step])
    assert top[0] == pytest.approx(0.1) and top[24] == pytest.approx(0.01)


def test_each_parameter_is_in_one_group_and_the_first_layer_has_the_least():
    model = timm.create_model("test_vit", num_classes=0)
    groups = groups_of(model)
    listed = [p for group in groups for p in group["params"]]
    assert len(listed) == len({id(p) for p in listed}) == len(list(model.parameters()))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    least = min(rates.values())
    assert rates[id(model.patch_embed.proj.weight)] == least
    assert rates[id(model.blocks[0].attn.qkv.weight)] == pytest.approx(2 * least)
    assert rates[id(model.norm.weight)] == 1.0
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays[id(model.norm.weight)] == 0 and decays[id(model.blocks[0].attn.qkv.weight)] == 0.1


def test_without_decay_all_rates_are_one():
    groups = groups_of(timm.create_model("test_resnet", num_classes=0), decay=1.0, lr=0.3)
    assert {group["lr"] for group in groups} == {0.3}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}


@pytest.mark.parametrize("small", [False, True])
def test_torchvisions_resnet_becomes_timms(small):
    torch.manual_seed(0)
    backbone, _ = build_backbone("resnet18", {})
    apply_stem(backbone, small)
    with pytest.raises(UserError, match=r"layer_decay: expected 1 for ResNet.*timm sees 1"):
        groups_of(backbone)
    twin = as_timm(backbone, "resnet18")
    assert twin.state_dict().keys() == backbone.state_dict().keys()
    x = torch.randn(2, 3, 32, 32)
    for module in (backbone, twin):
        module.eval()
    assert torch.equal(backbone(x), twin(x))
    assert len({group["lr"] for group in groups_of(twin)}) >= 9
    assert as_timm(twin, "resnet18") is twin


def test_a_backbone_of_one_layer_is_refused():
    with pytest.raises(UserError, match="layer_decay: expected 1 for Sequential"):
        groups_of(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))


def test_the_probe_comes_first():
    two = {**SCHEDULE, "probe": 10, "total": 30, "probe_rate": 4.0}
    head = [rate(step, is_head=True, **two) for step in range(31)]
    others = [rate(step, is_head=False, **two) for step in range(31)]
    assert head[0] == 4.0 and head[5] == pytest.approx(2.0) and others[:10] == [0.0] * 10
    assert head[10:] == others[10:]
    assert others[10] == pytest.approx(0.1) and others[15] == 1.0 and others[30] == 0.01
