# SPDX-License-Identifier: MIT
"""ICCL-style: halves and views, what trains what, centroids, and what it refuses."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.losses.iccl import centroid_loss, mix_images, mixup_cross_entropy
from ltplugins.methods import iccl
from tests.kit.hosts import on_the_stand_in
from tests.kit.linear import five_losses, linear_maps
from tests.kit.runs import build, fit, step
from tests.kit.tiny import tiny_config
from tests.kit.views import VIEW

PAIRS, SIZE, CLASSES = 4, 8, 3


def half_batch(pairs=PAIRS, seed=0, views=2):
    g = torch.Generator().manual_seed(seed)
    images = [torch.randn(2 * pairs, 3, SIZE, SIZE, generator=g).double() for _ in range(views)]
    return [torch.arange(2 * pairs), images, torch.randint(CLASSES, (2 * pairs,), generator=g)]


def linear_model(folder, **changes):
    changes = {"method_kwargs__curriculum": "constant", **changes}
    model = linear_maps(build(tiny_config(folder, "iccl", **changes))[0])
    model.classifier = nn.Linear(model.features_dim, CLASSES).double()
    return model


def with_centroids(model, seed=3):
    """As after some steps."""
    g = torch.Generator().manual_seed(seed)
    centroids = nn.functional.normalize(torch.randn(CLASSES, 8, generator=g).double(), dim=1)
    model.iccl_centroids.copy_(centroids)
    model.iccl_updates.fill_(5)
    return model


@pytest.mark.parametrize("views", [1, 2])
def test_loss_is_both_branches_written_out(views, tmp_path):
    changes = {"method_kwargs__clean_weight": 0.7, "method_kwargs__centroid_weight": 0.3}
    changes["augmentations"] = [{**VIEW, "num_crops": views}]
    model = with_centroids(linear_model(tmp_path, **changes))
    _, images, targets = batch = half_batch(views=views)
    a, b = targets[:PAIRS], targets[PAIRS:]
    lam, centroids = model._draw_lambda(PAIRS, 0), model.iccl_centroids.clone()

    def branch(x, other, share):
        feats = model.backbone(x)
        contrast = centroid_loss(
            model.projector(feats), centroids, a, other, share, temperature=0.1
        )
        return mixup_cross_entropy(model.classifier(feats), a, other, share) + 0.3 * contrast

    mixed = branch(mix_images(images[0][:PAIRS], images[0][PAIRS:], lam), b, lam)
    clean = branch(images[-1][:PAIRS], a, torch.ones(PAIRS))
    torch.testing.assert_close(step(model, batch), 0.7 * clean + mixed)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_branch_without_weight_leaves_no_trace_in_the_backbone(weight, tmp_path):
    """Nor in the statistics of its BatchNorm, which evaluation goes by."""
    model = with_centroids(linear_model(tmp_path, method_kwargs__mixed_weight=weight))
    batch = half_batch()
    seen = []
    model.backbone.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    step(model, batch)
    clean = batch[1][-1][:PAIRS]
    assert [torch.equal(x, clean) for x in seen] == ([True] if weight == 0 else [False, True])


def test_the_curriculum_follows_the_epochs(tmp_path, monkeypatch):
    model = with_centroids(linear_model(tmp_path, method_kwargs__curriculum="parabolic-style"))
    start, batch = model.iccl_centroids.clone(), half_batch()
    losses = []
    for epoch in (0, 1, 2):
        monkeypatch.setattr(type(model), "current_epoch", epoch)
        monkeypatch.setattr(model, "_draw_lambda", lambda n, _: torch.full((n,), 0.5))
        model.iccl_centroids.copy_(start)
        losses.append(step(model, batch))
    clean = losses[0]  # weights 1 and 0
    mixed = (losses[1] - (1 - 1 / 9) * clean) * 9
    torch.testing.assert_close(losses[2], (1 - 4 / 9) * clean + 4 / 9 * mixed)
    assert abs(clean - mixed) > 1e-3


def test_the_classifier_trains_the_backbone_and_is_the_hosts(tmp_path):
    model = linear_model(tmp_path, method_kwargs__centroid_weight=0.0)
    step(model, half_batch()).backward()
    assert model.backbone[1].weight.grad.abs().max() > 0
    assert model.classifier.weight.grad.abs().max() > 0
    assert model.projector.weight.grad.abs().max() == 0
    x = half_batch()[1][0]
    out = model(x)
    assert torch.equal(out["logits"], model.class_logits(out["feats"]))
    torch.testing.assert_close(out["z"].norm(dim=1), torch.ones(len(x)).double())
    assert out["logits"].requires_grad
    assert type(model).own_classifier
    names = [group["name"] for group in model.learnable_params]
    assert names == ["backbone", "classifier", "projector"]


def test_centroids_alone_train_the_backbone_too_and_get_no_gradient(tmp_path):
    model = with_centroids(linear_model(tmp_path))
    step(model, half_batch()).backward()
    grads = {k.split(".")[0] for k, p in model.named_parameters() if p.grad is not None}
    assert grads == {"backbone", "projector", "classifier"}
    assert not model.iccl_centroids.requires_grad
    assert model.projector.weight.grad.abs().max() > 0


def test_centroids_come_from_the_clean_class_agnostic_half(tmp_path):
    model = linear_model(tmp_path)
    _, images, targets = batch = half_batch()
    targets[:PAIRS], targets[PAIRS:] = torch.tensor([0, 1, 0, 1]), 2
    step(model, batch)
    z = model(images[1])["z"][:PAIRS].detach()
    expected = torch.stack([z[[0, 2]].mean(0), z[[1, 3]].mean(0)])
    torch.testing.assert_close(model.iccl_centroids[:2], nn.functional.normalize(expected, dim=1))
    # Class 2 was only mixed in: it has no centroid yet.
    assert model.iccl_updates.tolist() == [1, 1, 0]
    assert torch.equal(model.iccl_centroids[2], torch.zeros(8).double())


def test_without_weight_the_clean_branch_only_serves_the_centroids(tmp_path):
    model = with_centroids(linear_model(tmp_path, method_kwargs__clean_weight=0.0))
    batch, before = half_batch(), model.iccl_centroids.clone()
    loss = step(model, batch)
    loss.backward()
    assert not torch.equal(model.iccl_centroids, before)
    expected = with_centroids(linear_model(tmp_path, method_kwargs__clean_weight=1e-12))
    step(expected, batch).backward()
    for (name, p), q in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_shares_depend_on_seed_epoch_batch_and_place_alone(tmp_path, monkeypatch):
    model, _ = build(tiny_config(tmp_path, "iccl"))
    whole = model._draw_lambda(5, 3)
    torch.rand(3), np.random.rand(3)
    assert torch.equal(model._draw_lambda(5, 3), whole)
    assert not torch.equal(model._draw_lambda(5, 4), whole)
    assert torch.equal(model._draw_lambda(4, 3), whole[:4])  # a shorter last batch
    assert 0 <= whole.min() <= whole.max() <= 1
    # Two ranks: pairs 0, 2, 4 and 1, 3 of the joined batch.
    monkeypatch.setattr(iccl, "world_size", lambda: 2)
    for r, pairs in ((0, 3), (1, 2)):
        monkeypatch.setattr(iccl, "rank", lambda r=r: r)
        assert torch.equal(model._draw_lambda(pairs, 3), whole[r::2])


def test_shares_are_beta(tmp_path):
    model, _ = build(tiny_config(tmp_path, "iccl"))
    uniform = torch.cat([model._draw_lambda(100, i) for i in range(30)])
    counts = torch.histc(uniform, 10, 0, 1)
    assert (counts - 300).abs().max() < 70  # four standard deviations of 16.4
    steep, _ = build(tiny_config(tmp_path, "iccl", method_kwargs__mixup_alpha=0.1))
    extreme = torch.cat([steep._draw_lambda(100, i) for i in range(30)])
    assert ((extreme < 0.1) | (extreme > 0.9)).float().mean() > 0.7


@pytest.mark.parametrize("engine", ["batched", "workers"])
def test_two_epochs_of_real_halves(engine, tmp_path):
    model, data = build(tiny_config(tmp_path, "iccl", data__engine=engine))
    batches = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            batches.append(batch)

    trainer = fit(model, data, max_epochs=2, callbacks=[Watch()])
    metrics = trainer.callback_metrics
    for name in ("class_loss", "clean_centroid_loss", "mixup_loss", "centroid_loss"):
        assert torch.isfinite(metrics[f"train_{name}_epoch"])
    assert metrics["train_iccl_clean_weight_epoch"] == pytest.approx(1 - 1 / 9)
    assert metrics["train_iccl_filled_epoch"] == 1
    assert model.iccl_updates.min() > 0
    torch.testing.assert_close(model.iccl_centroids.norm(dim=1), torch.ones(CLASSES))
    # 42 images and a partner each in batches of 4 pairs: 10 an epoch, 2 pairs are left over.
    assert len(batches) == 20
    half = torch.cat([batch[0][:4] for batch in batches[:10]])
    assert len(half) == len(half.unique()) == 40
    aware = torch.cat([batch[2][4:] for batch in batches])
    agnostic = torch.cat([batch[2][:4] for batch in batches])
    # Of 24, 12 and 6 images, a share of .14 and, with gamma .5, .48 for the last class.
    assert (agnostic == 2).float().mean() < 0.25 < (aware == 2).float().mean()


@on_the_stand_in
def test_frozen_loss(tmp_path):
    """Five steps of one start; another number is another method: say why in the changelog."""
    losses = five_losses(linear_model(tmp_path), batch=half_batch, lr=0.001)
    assert losses == pytest.approx(
        [2.412205933, 3.06059346, 7.563822119, 11.405902267, 13.018449478], abs=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method_kwargs__tempreature": 1.0}, r"tempreature'. Did you mean 'temperature'"),
        ({"method_kwargs__curriculum": "linear"}, "expected one of parabolic-style, linear-style"),
        ({"method_kwargs__temperature": 0.0}, "temperature: expected a number above 0, got 0"),
        (
            {"method_kwargs__centroid_momentum": 1.0},
            "centroid_momentum: expected a number of 0 or more and",
        ),
        (
            {"method_kwargs__mixed_weight": -1.0},
            "mixed_weight: expected a number of 0 or more, got -1",
        ),
        ({"data__sampler": "shuffle"}, "data.sampler is 'shuffle'. Set data.sampler=two_branch"),
        ({"data__no_labels": True}, "two_branch' needs a label for every image; 42 of 42 have"),
        ({"optimizer__batch_size": 7}, "even number, it counts both images of a mixed pair; got 7"),
        ({"augmentations": [{**VIEW, "num_crops": 3}]}, "exactly 1 or 2 large views .* give 3"),
        (
            {"augmentations": [VIEW, {**VIEW, "crop_size": 8, "num_crops": 1}]},
            "give 2 large and 1 small",
        ),
    ],
)
def test_bad_input_is_named(changes, text, tmp_path):
    with pytest.raises(UserError, match=text):
        build(tiny_config(tmp_path, "iccl", **changes))


def test_a_run_without_labels_is_refused(tmp_path):
    model, _ = build(tiny_config(tmp_path, "iccl"))
    cfg = model.cfg.copy()
    cfg.data.no_labels = True
    with pytest.raises(UserError, match=r"iccl learns from labels, and data.no_labels is true"):
        type(model)(cfg)


def test_an_odd_batch_is_refused(tmp_path):
    indexes, views, targets = half_batch()
    with pytest.raises(UserError, match="a batch of 7 images cannot be split into pairs"):
        step(linear_model(tmp_path), [indexes[:7], [view[:7] for view in views], targets[:7]])
