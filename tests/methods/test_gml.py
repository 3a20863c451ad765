# SPDX-License-Identifier: MIT
"""GML in momentum mode: views, what trains what, prior and queue, ranks, resume, bad input."""

import math

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.losses.gml import contrastive_terms, logit_adjusted_cross_entropy
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from tests.kit.ranks import join_ranks, run_ranks
from tests.kit.runs import assert_same_run, build, fit, interrupted, load, step
from tests.kit.tiny import tiny_config
from tests.kit.views import VIEW

WORLD, SIZE, COUNTS = 2, 8, [24, 12, 6]
ROWS = [[0, 1, 2, 3, 4], [5, 6, 7]]  # of the ranks: uneven


def gml_config(folder, **changes):
    """A tiny run of GML on generated arrays."""
    cfg = tiny_config(folder, "simclr", momentum__final_tau=0.9)
    cfg.method = "gml"
    cfg.method_kwargs = {"proj_hidden_dim": 16, "proj_output_dim": 8, "queue_size": 16}
    cfg.augmentations = [{**VIEW, "num_crops": 1}, {**VIEW, "num_crops": 2}]
    for key, value in changes.items():
        *path, last = key.split("__")
        node = cfg
        for part in path:
            node = node[int(part) if part.isdigit() else part]
        node[last] = value
    return cfg


def views_batch(n=8, seed=0, views=3):
    g = torch.Generator().manual_seed(seed)
    images = [torch.randn(n, 3, SIZE, SIZE, generator=g).double() for _ in range(views)]
    return [torch.arange(n) + 10 * seed, images, torch.randint(0, 3, (n,), generator=g)]


def linear_model(folder, **changes):
    """Linear maps for networks, in double: BatchNorm would differ per rank by design."""
    model, _ = build(gml_config(folder, method_kwargs__class_counts=COUNTS, **changes))
    width = model.features_dim
    torch.manual_seed(0)
    for prefix in ("", "momentum_"):
        if hasattr(model, f"{prefix}backbone"):
            net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, width))
            setattr(model, f"{prefix}backbone", net)
        if hasattr(model, f"{prefix}projector"):
            setattr(model, f"{prefix}projector", nn.Linear(width, 8))
    if hasattr(model, "momentum_backbone"):
        model.momentum_backbone.requires_grad_(False)
        model.momentum_projector.requires_grad_(False)
    return model.double()


def unit(x):
    return nn.functional.normalize(x, dim=1)


def test_loss_is_the_algorithm_written_out(tmp_path):
    """Two steps, so that the second meets keys of the first, embedded anew."""
    model = linear_model(tmp_path)
    stored = []
    for seed in (0, 1):
        batch = views_batch(seed=seed)
        indexes, (cls, q, k), targets = batch
        loss = step(model, batch)
        stored += zip(model.momentum_backbone(k), targets, indexes, strict=True)
        # 16 slots: 10, 4... of counts 24, 12, 6; a class keeps its newest.
        by_class = [[row for row in stored if row[1] == c] for c in range(3)]
        room = model.gml_queue.capacities.tolist()
        rows = [row for c in range(3) for row in by_class[c][-room[c] :]]
        feats, labels, images = (torch.stack(x) for x in zip(*rows, strict=True))
        assert len(rows) == int(model.gml_queue.filled.sum())
        prior = torch.tensor(COUNTS) / 42
        con, temperature = contrastive_terms(
            unit(model.projector(model.backbone(q))),
            unit(model.momentum_projector(feats)),
            labels,
            images,
            targets,
            indexes,
            prior,
            temperature=torch.tensor(0.1),
        )
        feats = model.backbone(cls)
        cosines = unit(feats) @ unit(model.cosine_classifier.weight).T
        sup = logit_adjusted_cross_entropy(cosines, targets, prior, scale=30.0)
        both = model.backbone(torch.cat([cls, q]))
        probe = nn.functional.cross_entropy(model.classifier(both), targets.repeat(2))
        torch.testing.assert_close(loss, con + temperature + sup + probe, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(model.class_logits(feats), 30 * cosines)


def test_what_trains_what(tmp_path):
    model = linear_model(tmp_path)
    step(model, views_batch()).backward()
    grads = {k.split(".")[0] for k, p in model.named_parameters() if p.grad is not None}
    online = {"backbone", "projector", "cosine_classifier", "classifier"}
    assert grads == {*online, "gml_log_temperature"}
    groups = {group["name"]: group for group in model.learnable_params}
    assert set(groups) == {*online, "temperature"}
    assert groups["temperature"]["weight_decay"] == 0
    assert "weight_decay" not in groups["cosine_classifier"]
    trained = {id(p) for g in groups.values() for p in g["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}


def test_temperature_is_learned_without_weight_decay(tmp_path):
    """With the contrast's gradient held at 0 a decayed logarithm would still move."""
    changes = {"optimizer__weight_decay": 0.5, "method_kwargs__temperature": 0.07}
    model, data = build(gml_config(tmp_path, **changes))
    trainer = fit(model, data, max_steps=1)
    [group] = [g for g in trainer.optimizers[0].param_groups if g["name"] == "temperature"]
    assert group["weight_decay"] == 0
    assert model.gml_log_temperature.exp().item() != pytest.approx(0.07, abs=1e-9)
    assert "train_gml_temperature" in trainer.callback_metrics


def test_keys_follow_by_ema_and_are_embedded_anew(tmp_path):
    model, data = build(gml_config(tmp_path))
    start = model.momentum_projector[0].weight.clone()

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.expected = 0.9 * start + 0.1 * module.projector[0].weight

    watch = Watch()
    fit(model, data, max_steps=1, callbacks=[watch])
    torch.testing.assert_close(model.momentum_projector[0].weight, watch.expected)
    assert model.gml_queue.feats.shape == (16, model.features_dim)  # of the backbone, not keys


@pytest.mark.parametrize("engine", ["batched", "workers"])
def test_two_epochs(engine, tmp_path):
    model, data = build(gml_config(tmp_path, data__engine=engine))
    seen = {}

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.update(zip(batch[0].tolist(), batch[2].tolist(), strict=True))
            assert len(batch[1]) == 3
            assert not torch.equal(batch[1][0], batch[1][1])

    trainer = fit(model, data, max_epochs=2, callbacks=[Watch()])
    for name in ("nce_loss", "gml_sup_loss", "gml_temperature_loss", "class_loss", "gml_acc1"):
        assert torch.isfinite(trainer.callback_metrics[f"train_{name}_epoch"]), name
    assert model.class_counts.tolist() == COUNTS
    assert model.gml_queue.capacities.tolist() == [8, 5, 3]
    # Every stored label is the label of the image of that index.
    stored = model.gml_queue.stored()
    assert len(stored.targets) == 16
    assert stored.targets.tolist() == [seen[i] for i in stored.indexes.tolist()]


def test_queue_holds_the_features_of_the_very_images(tmp_path):
    """Features are recomputed from the image of the stored index: no shuffle can hide."""
    model = linear_model(tmp_path)
    batch = views_batch()
    step(model, batch)
    stored = model.gml_queue.stored()
    feats = model.momentum_backbone(batch[1][2])
    torch.testing.assert_close(stored.feats, feats[stored.indexes])
    assert torch.equal(stored.targets, batch[2][stored.indexes])


def test_first_in_first_out_and_a_class_without_images(tmp_path):
    changes = {"method_kwargs__base_k": 0, "method_kwargs__queue_size": 6}
    model, data = build(gml_config(tmp_path, **changes))
    trainer = fit(model, data, max_epochs=1)
    assert torch.isfinite(trainer.callback_metrics["train_nce_loss_epoch"])
    assert len(model.gml_queue.stored().targets) == 6
    model = linear_model(tmp_path)
    model.class_counts.copy_(torch.tensor([30, 12, 0]))
    batch = views_batch()
    batch[2] = batch[2] % 2
    loss = step(model, batch)
    loss.backward()
    assert loss.isfinite() and model.backbone[1].weight.grad.isfinite().all()


def test_classifier_alone_needs_one_view(tmp_path):
    changes = {"method_kwargs__contrast_weight": 0.0}
    cfg = gml_config(tmp_path, **changes)
    cfg.augmentations = [{**VIEW, "num_crops": 1}]
    model, data = build(cfg)
    trainer = fit(model, data, max_epochs=1)
    assert "train_nce_loss_epoch" not in trainer.callback_metrics
    names = {k.split(".")[0] for k, _ in model.named_parameters()}
    assert names == {"backbone", "classifier", "cosine_classifier"}
    assert model.momentum_pairs == []


def test_momentum_classifier_and_knn(tmp_path):
    cfg = gml_config(tmp_path, momentum__classifier=True)
    cfg.knn_eval = {"enabled": True, "k": 2}
    model, data = build(cfg)
    trainer = fit(model, data, max_epochs=1)
    assert torch.isfinite(trainer.callback_metrics["train_momentum_class_loss_epoch"])


def test_bf16_autocast(tmp_path):
    model, data = build(gml_config(tmp_path))
    trainer = fit(model, data, max_epochs=1, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["train_nce_loss_epoch"])
    assert model.gml_queue.feats.dtype == torch.float32


def test_frozen_loss(tmp_path):
    """Five steps of one start; another number is another method: say why in the changelog."""
    model = linear_model(tmp_path)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for seed in range(5):
        optimizer.zero_grad()
        loss = step(model, views_batch(seed=seed))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(
        [7.01972998, 12.5797957, 8.88291704, 13.27992173, 4.61438315], abs=1e-5
    )


@pytest.mark.parametrize(("epoch", "batch"), [(1, 0), (2, 3)], ids=["between", "inside"])
def test_a_resumed_run_equals_the_unbroken_one(epoch, batch, tmp_path, monkeypatch):
    changes = {"max_epochs": 4, "log_every_n_steps": 1}
    whole = pretrain(gml_config(tmp_path, **changes, output_dir=str(tmp_path / "whole")))
    cfg = gml_config(tmp_path, **changes, output_dir=str(tmp_path / "broken"))
    interrupted(cfg, epoch, batch, monkeypatch)
    assert_same_run(whole, pretrain(cfg))
    names = {"train_nce_loss_epoch", "train_gml_sup_loss_epoch", "train_gml_temperature_epoch"}
    assert names <= set(read_metrics(whole / "metrics.csv"))
    state = load(whole / "checkpoints/last.ckpt")["state_dict"]
    assert state["class_counts"].tolist() == COUNTS
    assert state["gml_log_temperature"].item() != pytest.approx(math.log(0.1), abs=1e-9)
    assert state["gml_queue.filled"].all()


def losses_and_gradients(folder, batches):
    model = linear_model(folder)
    for batch in batches:
        model.zero_grad()
        loss = step(model, batch)
        loss.backward()
    grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "grads": grads, "queue": model.gml_queue.state_dict()}


def on_rank(rank, world, folder):
    join_ranks(rank, world, folder, seconds=60)
    own = []
    for seed in (0, 1):
        indexes, views, targets = views_batch(seed=seed)
        rows = ROWS[rank]
        own.append([indexes[rows], [view[rows] for view in views], targets[rows]])
    torch.save(losses_and_gradients(folder / str(rank), own), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_one_with_batches_of_different_sizes(tmp_path):
    for name in ("0", "1", "whole"):
        (tmp_path / name).mkdir()
    run_ranks(on_rank, WORLD, tmp_path, timeout=120)
    whole = losses_and_gradients(tmp_path / "whole", [views_batch(seed=s) for s in (0, 1)])
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    mean = sum(part["loss"] for part in parts) / WORLD
    torch.testing.assert_close(mean, whole["loss"], rtol=1e-10, atol=1e-12)
    assert {k.split(".")[0] for k in whole["grads"]} >= {"gml_log_temperature", "projector"}
    for key, expected in whole["grads"].items():
        mean = sum(part["grads"][key] for part in parts) / WORLD
        torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-12, msg=key)
    for key, value in whole["queue"].items():
        # Bit for bit the same on every rank, without a broadcast.
        assert torch.equal(parts[0]["queue"][key], parts[1]["queue"][key]), key
        torch.testing.assert_close(parts[0]["queue"][key], value, rtol=1e-10, atol=1e-12)


def test_ddp_leaves_the_queue_alone(tmp_path):
    model, _ = build(gml_config(tmp_path))
    model.setup("fit")
    ignored = set(model._ddp_params_and_buffers_to_ignore)
    assert {f"gml_queue.{n}" for n in ("feats", "targets", "indexes", "filled")} <= ignored
    assert not any(k.startswith(("backbone", "class_counts")) for k in ignored)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method_kwargs__queue_sise": 9}, r"queue_sise'. Did you mean 'queue_size'"),
        ({"method_kwargs__queue_size": 5}, r"expected 6 or more, base_k \(2\) for each of 3"),
        ({"method_kwargs__temperature": 0.0}, "temperature: expected a number above 0, got 0.0"),
        ({"method_kwargs__sup_weight": 0.0}, "sup_weight: expected a number above 0"),
        (
            {"method_kwargs__distill_weight": 1.0},
            "distill_weight: expected 0 without a teacher .*, got 1.0",
        ),
        ({"method_kwargs__teacher": "runs/none"}, "runs/none does not exist. .*a model zoo"),
        ({"method_kwargs__class_counts": [1, 2]}, "class_counts: expected 3 numbers"),
        ({"augmentations__1__num_crops": 1}, "exactly 3 large views .* 2 large .*=small_gml"),
        ({"method_kwargs__contrast_weight": 0.0}, "exactly 1 large view of each image"),
        ({"data__no_labels": True}, "gml learns from labels, and data.no_labels is true"),
    ],
)
def test_bad_input_is_named(changes, text, tmp_path):
    with pytest.raises(UserError, match=text):
        build(gml_config(tmp_path, **changes))
