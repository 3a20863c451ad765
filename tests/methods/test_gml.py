# SPDX-License-Identifier: MIT
"""GML in momentum mode: views, what trains what, prior and queue, bad input."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.losses.gml import contrastive_terms, logit_adjusted_cross_entropy
from ltplugins.losses.terms.distillation import distillation_loss
from tests.kit.linear import five_losses, linear_maps, views_batch
from tests.kit.runs import build, fit, step
from tests.kit.tiny import tiny_config
from tests.kit.views import VIEW

COUNTS = [24, 12, 6]


def linear_model(folder, **changes):
    changes = {"method_kwargs__class_counts": COUNTS, **changes}
    return linear_maps(build(tiny_config(folder, "gml", **changes))[0])


def unit(x):
    return nn.functional.normalize(x, dim=1)


def test_loss_is_the_algorithm_written_out(tmp_path):
    """Two steps, so that the second meets keys of the first, embedded anew."""
    model = linear_model(tmp_path)
    with torch.no_grad():  # a twin that has moved apart, or it would teach nothing
        model.momentum_cosine_classifier.weight.add_(torch.randn(3, model.features_dim))
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
        twin = unit(model.momentum_backbone(cls)) @ unit(model.momentum_cosine_classifier.weight).T
        kd = distillation_loss(30 * cosines, 30 * twin, temperature=4.0)
        both = model.backbone(torch.cat([cls, q]))
        probe = nn.functional.cross_entropy(model.classifier(both), targets.repeat(2))
        torch.testing.assert_close(loss, con + temperature + sup + kd + probe, rtol=1e-6, atol=1e-6)
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
    model, data = build(tiny_config(tmp_path, "gml", **changes))
    trainer = fit(model, data, max_steps=1)
    [group] = [g for g in trainer.optimizers[0].param_groups if g["name"] == "temperature"]
    assert group["weight_decay"] == 0
    assert model.gml_log_temperature.exp().item() != pytest.approx(0.07, abs=1e-9)
    assert "train_gml_temperature" in trainer.callback_metrics


def test_keys_follow_by_ema_and_are_embedded_anew(tmp_path):
    model, data = build(tiny_config(tmp_path, "gml"))
    start = model.momentum_projector[0].weight.clone()

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.expected = 0.9 * start + 0.1 * module.projector[0].weight

    watch = Watch()
    fit(model, data, max_steps=1, callbacks=[watch])
    torch.testing.assert_close(model.momentum_projector[0].weight, watch.expected)
    assert model.gml_queue.feats.shape == (16, model.features_dim)  # of the backbone, not keys


def test_the_twin_teaches_and_follows_by_ema(tmp_path):
    model, data = build(tiny_config(tmp_path, "gml"))
    start = model.momentum_cosine_classifier.weight.clone()
    assert torch.equal(start, model.cosine_classifier.weight)
    sizes = []
    model.momentum_backbone.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.expected = 0.9 * start + 0.1 * module.cosine_classifier.weight

    watch = Watch()
    trainer = fit(model, data, max_steps=1, callbacks=[watch])
    torch.testing.assert_close(model.momentum_cosine_classifier.weight, watch.expected)
    assert not torch.equal(model.momentum_cosine_classifier.weight, start)
    assert sizes == [16]  # cls and k of 8 images, one batch to the BatchNorms
    assert torch.isfinite(trainer.callback_metrics["train_gml_kd_loss"])

    model, data = build(tiny_config(tmp_path, "gml", method_kwargs__distill_weight=0.0))
    assert not hasattr(model, "momentum_cosine_classifier")
    trainer = fit(model, data, max_steps=1)
    assert "train_gml_kd_loss" not in trainer.callback_metrics


@pytest.mark.parametrize("engine", ["batched", "workers"])
def test_two_epochs(engine, tmp_path):
    model, data = build(tiny_config(tmp_path, "gml", data__engine=engine))
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
    model, data = build(tiny_config(tmp_path, "gml", **changes))
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
    cfg = tiny_config(tmp_path, "gml", **changes)
    cfg.augmentations = [{**VIEW, "num_crops": 1}]
    model, data = build(cfg)
    trainer = fit(model, data, max_epochs=1)
    assert "train_nce_loss_epoch" not in trainer.callback_metrics
    names = {k.split(".")[0] for k, _ in model.named_parameters()}
    assert names == {"backbone", "classifier", "cosine_classifier"}
    assert model.momentum_pairs == []


def test_momentum_classifier_and_knn(tmp_path):
    cfg = tiny_config(tmp_path, "gml", momentum__classifier=True)
    cfg.knn_eval = {"enabled": True, "k": 2}
    model, data = build(cfg)
    trainer = fit(model, data, max_epochs=1)
    assert torch.isfinite(trainer.callback_metrics["train_momentum_class_loss_epoch"])


def test_frozen_loss(tmp_path):
    """Five steps of one start; another number is another method: say why in the changelog."""
    model = linear_model(tmp_path, method_kwargs__distill_weight=0.0)
    losses = five_losses(model, batch=views_batch, lr=0.01)
    assert losses == pytest.approx(
        [7.01972998, 12.5797957, 8.88291704, 13.27992173, 4.61438315], abs=1e-5
    )


def test_ddp_leaves_the_queue_alone(tmp_path):
    model, _ = build(tiny_config(tmp_path, "gml"))
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
            {"method_kwargs__distill_weight": 1.0, "method_kwargs__contrast_weight": 0.0},
            "distill_weight: expected 0 with contrast_weight 0 and no teacher .*, got 1.0",
        ),
        ({"method_kwargs__teacher": "runs/none"}, "runs/none does not exist. .*zoo://NAME"),
        ({"method_kwargs__class_counts": [1, 2]}, "class_counts: expected 3 numbers"),
        ({"augmentations__1__num_crops": 1}, "exactly 3 large views .* 2 large .*=small_gml"),
        ({"method_kwargs__contrast_weight": 0.0}, "exactly 1 large view of each image"),
        ({"data__no_labels": True}, "gml learns from labels, and data.no_labels is true"),
    ],
)
def test_bad_input_is_named(changes, text, tmp_path):
    with pytest.raises(UserError, match=text):
        build(tiny_config(tmp_path, "gml", **changes))
