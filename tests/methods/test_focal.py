# SPDX-License-Identifier: MIT
"""Focal-SimCLR: SimCLR at gamma 0, what trains what, resume, and what it refuses."""

import copy

import pytest
import torch
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.losses.focal import focal_nt_xent
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from tests.kit.linear import five_losses, linear_networks, loss_and_gradients, noise
from tests.kit.runs import build, step
from tests.kit.tiny import tiny_config


def test_gamma_zero_is_the_hosts_simclr(tmp_path):
    """The same keys, start, loss and gradients; with another gamma other ones."""
    focal, _ = build(tiny_config(tmp_path, "focal", method_kwargs__gamma=0.0))
    simclr, _ = build(tiny_config(tmp_path, "simclr"))
    other, _ = build(tiny_config(tmp_path, "focal"))
    assert focal.state_dict().keys() == simclr.state_dict().keys()
    for key, value in simclr.state_dict().items():
        assert torch.equal(value, focal.state_dict()[key]), key
    batch = noise(dtype=torch.float64)
    results = [loss_and_gradients(model.double(), batch) for model in (focal, simclr, other)]
    torch.testing.assert_close(results[0], results[1])
    assert not torch.allclose(results[0]["loss"], results[2]["loss"], rtol=1e-3)


def test_loss_is_the_focal_loss_of_both_views_and_the_class_loss(tmp_path):
    model, _ = build(tiny_config(tmp_path, "focal"))
    twin = copy.deepcopy(model)
    indexes, views, targets = noise()
    feats = [twin.backbone(view) for view in views]
    z = torch.cat([twin.projector(f) for f in feats])
    expected = focal_nt_xent(z, indexes.repeat(2), temperature=0.2, gamma=2.0).loss
    logits = [twin.classifier(f) for f in feats]
    expected = expected + sum(nn.functional.cross_entropy(x, targets) for x in logits) / 2
    torch.testing.assert_close(step(model, [indexes, views, targets]), expected)


def test_gradient_of_the_class_loss_stops_at_the_features(tmp_path):
    model, _ = build(tiny_config(tmp_path, "focal"))
    indexes, views, targets = noise()
    step(model, [torch.zeros_like(indexes), views, targets]).backward()
    # All images one: no negatives, the focal term is 0 and only the online classifier learns.
    assert all(p.grad.abs().max() == 0 for p in model.backbone.parameters())
    assert model.classifier.weight.grad.abs().max() > 0
    step(model, [indexes, views, targets]).backward()
    assert all(p.grad.abs().max() > 0 for p in model.projector.parameters())
    names = [group["name"] for group in model.learnable_params]
    assert names == ["backbone", "classifier", "projector"]


@pytest.mark.parametrize("engine", ["batched", "workers"])
def test_two_epochs(engine, tmp_path):
    run = pretrain(tiny_config(tmp_path, "focal", data__engine=engine, max_epochs=2))
    metrics = read_metrics(run / "metrics.csv")
    assert len(metrics["train_nce_loss_epoch"][1]) == 2
    assert all(0 < w <= 1 for w in metrics["train_focal_weight_epoch"][1])
    assert {"train_class_loss_epoch", "train_acc1_epoch"} <= set(metrics)


def test_options_reach_the_loss(tmp_path):
    values = set()
    for changes in ({}, {"method_kwargs__gamma": 0.5}, {"method_kwargs__temperature": 0.5}):
        model, _ = build(tiny_config(tmp_path, "focal", **changes))
        values.add(round(step(model, noise()).item(), 5))
    assert len(values) == 3
    grads = []
    for detach in (False, True):
        model, _ = build(tiny_config(tmp_path, "focal", method_kwargs__detach_weight=detach))
        step(model, noise()).backward()
        grads.append(model.projector[0].weight.grad)
    assert not torch.allclose(*grads, rtol=1e-3)


def test_frozen_loss(tmp_path):
    """Five steps of one start; another number is another method: say why in the changelog."""
    losses = five_losses(linear_networks(build(tiny_config(tmp_path, "focal"))[0]))
    assert losses == pytest.approx(
        [5.209566443, 4.390121840, 5.231422493, 4.527111917, 7.368902886], abs=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method_kwargs__gama": 1.0}, r"method_kwargs.gama'. Did you mean 'gamma'"),
        ({"method_kwargs__gamma": -2.0}, "gamma: expected a number of 0 or more, got -2.0"),
        ({"method_kwargs__temperature": 0}, "temperature: expected a number above 0, got 0"),
        (
            {"method_kwargs__gamma": "two"},
            "method_kwargs.gamma: expected a number of 0 or more, got 'two'",
        ),
        ({"augmentations__0__num_crops": 3}, "focal takes exactly 2 large views .* 3 large"),
    ],
)
def test_bad_input_is_named(changes, text, tmp_path):
    with pytest.raises(UserError, match=text):
        build(tiny_config(tmp_path, "focal", **changes))
