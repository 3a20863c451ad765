# SPDX-License-Identifier: MIT
"""ICCL-style: halves and views, what trains what, centroids, ranks, resume, and what it refuses."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.host import HOST
from ltplugins.losses.iccl import centroid_loss, mix_images, mixup_cross_entropy
from ltplugins.methods import iccl
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from tests.kit.ranks import join_ranks, run_ranks
from tests.kit.runs import assert_same_run, build, fit, interrupted, load, step
from tests.kit.tiny import tiny_config
from tests.kit.views import VIEW

WORLD, PAIRS, SIZE, CLASSES = 2, 4, 8, 3
HEADS = {"proj_hidden_dim": 16, "proj_output_dim": 8}


# Its networks are what the stored values and the forked ranks have.
on_the_stand_in = pytest.mark.skipif(HOST.name != "builtin", reason="of the stand-in's networks")


def iccl_config(folder, **changes):
    """A tiny run of ICCL on generated arrays."""
    cfg = tiny_config(folder, "simclr")
    cfg.method, cfg.method_kwargs = "iccl", dict(HEADS)
    cfg.data.sampler = {"name": "two_branch", "gamma": 0.5}
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, merge=False, force_add=True)
    return cfg


def half_batch(pairs=PAIRS, seed=0, views=2):
    g = torch.Generator().manual_seed(seed)
    images = [torch.randn(2 * pairs, 3, SIZE, SIZE, generator=g).double() for _ in range(views)]
    return [torch.arange(2 * pairs), images, torch.randint(CLASSES, (2 * pairs,), generator=g)]


def linear_model(folder, **changes):
    """Linear maps for networks, in double: BatchNorm would differ per rank by design."""
    model, _ = build(iccl_config(folder, **{"method_kwargs__curriculum": "constant", **changes}))
    width = model.features_dim
    torch.manual_seed(0)
    model.backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, width))
    model.projector, model.classifier = nn.Linear(width, 8), nn.Linear(width, CLASSES)
    return model.double()


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
    model, _ = build(iccl_config(tmp_path))
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
    model, _ = build(iccl_config(tmp_path))
    uniform = torch.cat([model._draw_lambda(100, i) for i in range(30)])
    counts = torch.histc(uniform, 10, 0, 1)
    assert (counts - 300).abs().max() < 70  # four standard deviations of 16.4
    steep, _ = build(iccl_config(tmp_path, method_kwargs__mixup_alpha=0.1))
    extreme = torch.cat([steep._draw_lambda(100, i) for i in range(30)])
    assert ((extreme < 0.1) | (extreme > 0.9)).float().mean() > 0.7


@pytest.mark.parametrize("engine", ["batched", "workers"])
def test_two_epochs_of_real_halves(engine, tmp_path):
    model, data = build(iccl_config(tmp_path, data__engine=engine))
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
    # 42 images and a partner each in batches of 4 pairs: 10 an epoch, 2 pairs are left over.
    assert len(batches) == 20
    half = torch.cat([batch[0][:4] for batch in batches[:10]])
    assert len(half) == len(half.unique()) == 40
    aware = torch.cat([batch[2][4:] for batch in batches])
    agnostic = torch.cat([batch[2][:4] for batch in batches])
    # Of 24, 12 and 6 images, a share of .14 and, with gamma .5, .48 for the last class.
    assert (agnostic == 2).float().mean() < 0.25 < (aware == 2).float().mean()


def test_bf16_autocast(tmp_path):
    model, data = build(iccl_config(tmp_path))
    trainer = fit(model, data, max_epochs=1, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["train_centroid_loss_epoch"])
    assert model.iccl_centroids.dtype == torch.float32
    torch.testing.assert_close(model.iccl_centroids.norm(dim=1), torch.ones(CLASSES))


@on_the_stand_in
def test_frozen_loss(tmp_path):
    """Five steps of one start; another number is another method: say why in the changelog."""
    model = linear_model(tmp_path)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.001)
    losses = []
    for seed in range(5):
        optimizer.zero_grad()
        loss = step(model, half_batch(seed=seed))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(
        [2.412205933, 3.06059346, 7.563822119, 11.405902267, 13.018449478], abs=1e-6
    )


@pytest.mark.parametrize(("epoch", "batch"), [(1, 0), (2, 3)], ids=["between", "inside"])
def test_a_resumed_run_equals_the_unbroken_one(epoch, batch, tmp_path, monkeypatch):
    changes = {"max_epochs": 4, "log_every_n_steps": 1}
    whole = pretrain(iccl_config(tmp_path, **changes, output_dir=str(tmp_path / "whole")))
    cfg = iccl_config(tmp_path, **changes, output_dir=str(tmp_path / "broken"))
    interrupted(cfg, epoch, batch, monkeypatch)
    assert_same_run(whole, pretrain(cfg))
    state = load(whole / "checkpoints/last.ckpt")["state_dict"]
    assert state["iccl_updates"].min() > 0
    torch.testing.assert_close(state["iccl_centroids"].norm(dim=1), torch.ones(CLASSES))
    metrics = read_metrics(whole / "metrics.csv")
    assert {"train_acc1_epoch", "train_mixup_loss_epoch", "val_acc1"} <= set(metrics)


def losses_and_gradients(folder, rows):
    """Two steps from one start: the second one meets centroids of the first."""
    model = linear_model(folder)
    for seed in range(2):
        indexes, views, targets = half_batch(len(rows), seed)
        own = torch.cat([rows.nonzero()[:, 0], len(rows) + rows.nonzero()[:, 0]])
        model.zero_grad()
        loss = step(model, [indexes[own], [view[own] for view in views], targets[own]])
        loss.backward()
    grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    state = {"centroids": model.iccl_centroids, "updates": model.iccl_updates}
    return {"loss": loss.detach(), "grads": grads, **state}


def on_rank(rank, world, folder):
    join_ranks(rank, world, folder, seconds=60)
    for pairs in (4, 5):  # with 5 the second rank has one fewer
        rows = torch.arange(pairs) % world == rank  # as the sampler shares
        torch.save(losses_and_gradients(folder / str(rank), rows), folder / f"{rank}-{pairs}.pt")
    torch.distributed.destroy_process_group()


@on_the_stand_in
def test_two_ranks_equal_one(tmp_path):
    for name in ("0", "1", "whole"):
        (tmp_path / name).mkdir()
    run_ranks(on_rank, WORLD, tmp_path, timeout=120)
    for pairs in (4, 5):
        whole = losses_and_gradients(tmp_path / "whole", torch.ones(pairs, dtype=torch.bool))
        parts = [torch.load(tmp_path / f"{rank}-{pairs}.pt") for rank in range(WORLD)]
        mean = sum(part["loss"] for part in parts) / WORLD
        torch.testing.assert_close(mean, whole["loss"], rtol=1e-10, atol=1e-12)
        for key, expected in whole["grads"].items():
            mean = sum(part["grads"][key] for part in parts) / WORLD
            torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-12, msg=key)
        for key in ("centroids", "updates"):
            assert torch.equal(parts[0][key], parts[1][key])
            torch.testing.assert_close(parts[0][key], whole[key])


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
        build(iccl_config(tmp_path, **changes))


def test_a_run_without_labels_is_refused(tmp_path):
    model, _ = build(iccl_config(tmp_path))
    cfg = model.cfg.copy()
    cfg.data.no_labels = True
    with pytest.raises(UserError, match=r"iccl learns from labels, and data.no_labels is true"):
        type(model)(cfg)


def test_an_odd_batch_is_refused(tmp_path):
    indexes, views, targets = half_batch()
    with pytest.raises(UserError, match="a batch of 7 images cannot be split into pairs"):
        step(linear_model(tmp_path), [indexes[:7], [view[:7] for view in views], targets[:7]])
