# SPDX-License-Identifier: MIT
"""Optimizers and schedules: values at the points that matter."""

import copy
import math
import types
from typing import Any

import pytest
import torch
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.host.builtin.optim import (
    ClosedFormLR,
    build_optimizer,
    build_schedule,
    multi_step,
    split_vectors,
    warmup_cosine,
)
from tests.kit.hosts import host_methods, needs_solo, tiny_cfg


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def groups(model: nn.Module) -> list[dict[str, Any]]:
    return [
        {"name": "body", "params": model[:2].parameters()},
        {"name": "head", "params": model[2].parameters(), "lr": 0.01, "weight_decay": 0},
    ]


def test_warmup_cosine_at_its_ends() -> None:
    curve = {"start": 0.001, "minimum": 0.01, "warmup": 4, "total": 12}
    rates = [warmup_cosine(t, 1.0, **curve) for t in range(15)]
    assert rates[0] == 0.001
    assert rates[2] == pytest.approx((0.001 + 1) / 2)
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx((1 + 0.01) / 2)
    assert rates[12] == rates[13] == rates[14] == 0.01  # it does not rise again
    assert max(rates) == 1.0
    assert rates[5:13] == sorted(rates[5:13], reverse=True)


def test_no_warmup_starts_at_the_top() -> None:
    assert warmup_cosine(0, 0.5, start=3e-5, minimum=0, warmup=0, total=10) == 0.5


def test_multi_step_counts_reached_milestones() -> None:
    rates = [multi_step(t, 1.0, milestones=[2, 4]) for t in range(5)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_schedule_through_the_method() -> None:
    """10 steps, 5 epochs, 2 of warm-up; the SimSiam predictor keeps its rate."""
    cfg = tiny_cfg("simsiam", max_epochs=5, scheduler__warmup_epochs=2, scheduler__min_lr=0.01)
    model = host_methods("builtin")["simsiam"](cfg)
    model._trainer = types.SimpleNamespace(estimated_stepping_batches=10)
    (optimizer,), (entry,) = model.configure_optimizers()
    scheduler, rates = entry["scheduler"], []
    for _ in range(11):
        rates.append({g["name"]: g["lr"] for g in optimizer.param_groups})
        optimizer.step()
        scheduler.step()
    assert entry["interval"] == "step"
    assert [rates[t]["backbone"] for t in (0, 4, 7, 10)] == pytest.approx([3e-5, 0.1, 0.055, 0.01])
    assert rates[10]["backbone"] == 0.01
    assert rates[4]["classifier"] == 0.05
    assert {r["predictor"] for r in rates} == {0.1}


def test_accumulation_scales_the_rates() -> None:
    model = host_methods("builtin")["simclr"](tiny_cfg("simclr", accumulate_grad_batches=3))
    assert model.lr == pytest.approx(0.3)
    assert model.classifier_lr == pytest.approx(0.15)
    assert model.warmup_start_lr == pytest.approx(9e-5)


def test_resumed_schedule_is_exact() -> None:
    def make() -> ClosedFormLR:
        curve = lambda t, base: warmup_cosine(  # noqa: E731
            t, base, start=0, minimum=0, warmup=3, total=10
        )
        return ClosedFormLR(torch.optim.SGD(net().parameters(), lr=0.1), curve)

    whole, first, second = make(), make(), make()
    for _ in range(7):
        whole.optimizer.step()
        whole.step()
    for _ in range(4):
        first.optimizer.step()
        first.step()
    state = first.state_dict()
    assert not any(callable(value) for value in state.values())
    second.load_state_dict(state)
    for _ in range(3):
        second.optimizer.step()
        second.step()
    assert second.get_last_lr() == whole.get_last_lr()


def schedule(name: str, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "interval": "step",
        "total_steps": 10,
        "max_epochs": 5,
        "min_lr": 0.0,
        "warmup_start_lr": 0.0,
        "warmup_epochs": 1,
        "lr_decay_steps": None,
    }
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    return build_schedule(optimizer, name, **{**options, **changes})


def test_schedule_kinds() -> None:
    assert schedule("none") is None
    entry = schedule("step", lr_decay_steps=[3])
    assert entry["interval"] == "epoch"
    epochs = schedule("warmup_cosine", interval="epoch")
    assert epochs["interval"] == "epoch"
    assert epochs["scheduler"].curve(5, 0.1) == 0.0


def test_bad_schedules() -> None:
    with pytest.raises(
        UserError, match=r"unknown scheduler 'warmup_cosin'. Did you mean 'warmup_c"
    ):
        schedule("warmup_cosin")
    with pytest.raises(UserError, match="lr_decay_steps: scheduler 'step' needs a list of epochs"):
        schedule("step")
    with pytest.raises(UserError, match="must know where the run ends; set max_epochs"):
        schedule("warmup_cosine", total_steps=math.inf)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars", "lamb"])
def test_every_optimizer_steps(name: str) -> None:
    model = net()
    optimizer = build_optimizer(name, groups(model), lr=0.1, weight_decay=1e-2)
    before = [p.clone() for p in model.parameters()]
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    assert all((p != q).any() for p, q in zip(model.parameters(), before, strict=True))
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.1, 0.01),
        (0.01, 0),
    ]


def test_biases_and_norms_lose_their_weight_decay() -> None:
    model = net()
    options = {"lr": 0.1, "weight_decay": 0.01, "exclude_bias_n_norm_wd": True}
    optimizer = build_optimizer("sgd", groups(model), **options)
    found = {g["name"]: (len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups}
    assert found == {
        "body": (1, 0.01),
        "body_no_decay": (3, 0),
        "head": (1, 0),
        "head_no_decay": (1, 0),
    }
    assert split_vectors([{"params": []}]) == []


def test_lars_by_hand() -> None:
    """Rate 0.1, one weight of norm 2 with gradient norm 4: step = 0.1 * (0.02 * 2 / 4) * 4."""
    weight = nn.Parameter(torch.tensor([[2.0]]))
    bias = nn.Parameter(torch.tensor([1.0]))
    kwargs = {"eta": 0.02, "exclude_bias_n_norm": True}
    optimizer = build_optimizer(
        "lars", [{"params": [weight, bias]}], lr=0.1, weight_decay=0.0, kwargs=kwargs
    )
    weight.grad, bias.grad = torch.tensor([[4.0]]), torch.tensor([4.0])
    optimizer.step()
    assert weight.item() == pytest.approx(2 - 0.1 * 0.02 * 2)
    assert bias.item() == pytest.approx(1 - 0.1 * 4)  # excluded: plain SGD


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("clip", [True, False])
def test_lars_equals_solo(exclude: bool, clip: bool) -> None:
    from solo.utils.lars import LARS

    kwargs = {"eta": 0.02, "clip_lr": clip, "exclude_bias_n_norm": exclude, "momentum": 0.9}
    ours = net()
    theirs = copy.deepcopy(ours)
    optimizers = [
        build_optimizer("lars", groups(ours), lr=0.3, weight_decay=1e-2, kwargs=kwargs),
        LARS(groups(theirs), lr=0.3, weight_decay=1e-2, **kwargs),
    ]
    for _ in range(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(torch.linspace(-1, 1, 8).view(2, 4)).square().sum().backward()
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


test_lars_equals_solo.pytestmark += needs_solo  # type: ignore[attr-defined]


def test_bad_optimizers() -> None:
    with pytest.raises(UserError, match=r"unknown optimizer 'adamv'. Did you mean 'adam'"):
        build_optimizer("adamv", groups(net()), lr=0.1, weight_decay=0)
    with pytest.raises(UserError, match=r"optimizer.kwargs: sgd does not take .*momentun"):
        build_optimizer("sgd", groups(net()), lr=0.1, weight_decay=0, kwargs={"momentun": 1})
