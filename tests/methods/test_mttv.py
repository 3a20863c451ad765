# SPDX-License-Identifier: MIT
"""MTTV: views and fusion, what trains what, and what it refuses."""

from dataclasses import asdict

import lightning.pytorch as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.host.build import scale_learning_rates
from ltplugins.host.builtin.optim import warmup_cosine
from ltplugins.losses.mttv import filtered_log_probs, reduce_log_probs
from ltplugins.methods.mttv import MTTVConfig
from tests.kit.linear import five_losses, linear_maps
from tests.kit.paths import ROOT
from tests.kit.runs import build, fit, step
from tests.kit.tiny import tiny_config

PAIRS, SIZE = 4, 8


def pair_batch(pairs=PAIRS, seed=0, size=SIZE):
    g = torch.Generator().manual_seed(seed)
    views = [torch.randn(2 * pairs, 3, size, size, generator=g) for _ in range(2)]
    return [torch.arange(2 * pairs), views, torch.arange(2 * pairs) % 3]


def linear_model(folder, **changes):
    return linear_maps(build(tiny_config(folder, "mttv", **changes))[0])


def in_double(batch):
    return [batch[0], [view.double() for view in batch[1]], batch[2]]


@pytest.mark.parametrize("fusion", ["sum", "concat-style"])
def test_loss_is_the_papers_fusion_of_the_right_views(fusion, tmp_path):
    """u = f_q(plain x) + f_q(strong y), v = f_k(strong x) + f_k(plain y), written out by hand."""
    model = linear_model(tmp_path, method_kwargs__fusion=fusion)
    batch = in_double(pair_batch())
    plain, strong = batch[1]

    def embed(prefix, image):
        backbone, head = getattr(model, f"{prefix}backbone"), getattr(model, f"{prefix}projector")
        return head(backbone(image[None]))[0]

    us, vs = [], []
    for i in range(PAIRS):
        x, y = 2 * i, 2 * i + 1
        parts = [embed("", plain[x]), embed("", strong[y])]
        keys = [embed("momentum_", strong[x]), embed("momentum_", plain[y])]
        us.append(torch.cat(parts) if fusion != "sum" else parts[0] + parts[1])
        vs.append(torch.cat(keys) if fusion != "sum" else keys[0] + keys[1])
    options = {"temperature": 0.3, "lower": 0.1, "upper": 0.9}
    probs = filtered_log_probs(torch.stack(us), torch.stack(vs), **options)
    expected = reduce_log_probs(probs.log_p, probs.has_positive, "log_mean")
    loss = step(model, batch)
    class_loss = sum(
        nn.functional.cross_entropy(model.classifier(model.backbone(v)), batch[2][i::2])
        for i, v in enumerate((plain[0::2], strong[1::2]))
    )
    torch.testing.assert_close(loss, expected + class_loss / 2)


def test_gradient_reaches_the_queries_only(tmp_path):
    model = linear_model(tmp_path)
    step(model, in_double(pair_batch())).backward()
    grads = {k for k, p in model.named_parameters() if p.grad is not None}
    trained = {"backbone", "projector", "classifier"}
    assert {k.split(".")[0] for k in grads} == trained
    # The class loss stops at the features: without the contrast the backbone gets nothing.
    model.zero_grad()
    model.mttv = MTTVConfig(**{**asdict(model.mttv), "lower": 0.99, "upper": 0.999})
    step(model, in_double(pair_batch())).backward()
    assert model.backbone[1].weight.grad.abs().max() == 0
    assert model.classifier.weight.grad.abs().max() > 0


def test_projector_and_twin(tmp_path):
    cfg = tiny_config(tmp_path, "mttv")
    cfg.method_kwargs = {}
    model, _ = build(cfg)
    widths = [m.out_features for m in model.projector if isinstance(m, nn.Linear)]
    width = model.features_dim
    assert widths == [width, width, width // 4]
    assert [type(m).__name__ for m in model.projector].count("BatchNorm1d") == 3
    for online, twin in model.momentum_pairs:
        for a, b in zip(online.parameters(), twin.parameters(), strict=True):
            assert torch.equal(a, b)
            assert not b.requires_grad
    names = [group["name"] for group in model.learnable_params]
    assert names == ["backbone", "classifier", "projector"]


def test_keys_follow_by_ema_of_the_parameters(tmp_path):
    model, data = build(tiny_config(tmp_path, "mttv"))
    start = model.momentum_projector[0].weight.clone()

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.expected = 0.9 * start + 0.1 * module.projector[0].weight

    watch = Watch()
    fit(model, data, max_steps=1, callbacks=[watch])
    torch.testing.assert_close(model.momentum_projector[0].weight, watch.expected)
    assert model.momentum_updater.cur_tau == pytest.approx(0.9)


@pytest.mark.parametrize("engine", ["batched", "workers"])
def test_two_epochs_of_real_pairs(engine, tmp_path):
    model, data = build(tiny_config(tmp_path, "mttv", data__engine=engine))
    batches = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            batches.append(batch)

    trainer = fit(model, data, max_epochs=2, callbacks=[Watch()])
    assert torch.isfinite(trainer.callback_metrics["train_nce_loss_epoch"])
    assert 0 <= trainer.callback_metrics["train_mttv_dropped_epoch"] < 1
    assert 0 < trainer.callback_metrics["train_mttv_positives_epoch"] <= 1
    # 42 images and a partner each, in batches of 4 pairs: 10 an epoch, 2 pairs are left over.
    assert len(batches) == 20
    first = torch.cat([batch[0][0::2] for batch in batches[:10]])
    assert len(first) == len(first.unique()) == 40
    # The plain view is the stored image, normalised: nothing random about it.
    seen, changed = {}, []
    for indexes, (plain, strong), _ in batches:
        for i, view, other in zip(indexes.tolist(), plain, strong, strict=True):
            assert i not in seen or torch.equal(seen[i], view)
            seen[i] = view
            changed.append(not torch.equal(view, other))
    assert sum(changed) > 0.9 * len(changed)  # a strong view can leave the image alone by chance


def test_neighbours_as_partners_with_any_sampler(tmp_path):
    changes = {"method_kwargs__pairing": "in_batch-style", "data__sampler": "shuffle"}
    model, data = build(tiny_config(tmp_path, "mttv", **changes))
    trainer = fit(model, data, max_epochs=1)
    assert trainer.global_step == 5  # 42 images in batches of 8


def test_filter_options_reach_the_loss(tmp_path):
    batch = in_double(pair_batch())
    values = set()
    for changes in (
        {},
        {"method_kwargs__upper": 1.0},
        {"method_kwargs__lower": 0.6},
        {"method_kwargs__filter": "negatives-style", "method_kwargs__lower": 0.6},
        {"method_kwargs__reduction": "mean_log"},
        {"method_kwargs__temperature": 0.5},
    ):
        values.add(round(float(step(linear_model(tmp_path, **changes), batch)), 9))
    assert len(values) >= 5  # no similarity above .9 makes the second equal to the first


def test_cifar_script_has_the_official_learning_rates():
    """LinearLR from 1e-4 of 3.0 over 200 epochs, then a cosine to 0; per epoch, at 1024 pairs."""
    folder = ROOT / "scripts/pretrain/cifar"
    with initialize_config_dir(str(folder), version_base="1.2"):
        cfg = scale_learning_rates(resolve(compose("mttv")).host, world_size=1)
    plan = cfg.scheduler
    assert (cfg.max_epochs, plan.interval, cfg.optimizer.batch_size) == (2000, "epoch", 2048)
    for epoch, rate in [(0, 3e-4), (1, 0.0152985), (100, 1.50015), (200, 3.0), (1100, 1.5)]:
        lr = warmup_cosine(
            epoch,
            cfg.optimizer.lr,
            start=plan.warmup_start_lr,
            minimum=plan.min_lr,
            warmup=plan.warmup_epochs,
            total=cfg.max_epochs,
        )
        assert lr == pytest.approx(rate)


def test_frozen_loss(tmp_path):
    """Five steps of one start; another number is another method: say why in the changelog."""
    model = linear_model(tmp_path)
    losses = five_losses(model, batch=lambda seed: in_double(pair_batch(seed=seed)))
    assert losses == pytest.approx(
        [4.178503108, 4.000411573, 3.181799561, 3.498269335, 2.899614587], abs=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method_kwargs__tempreature": 1.0}, r"tempreature'. Did you mean 'temperature'"),
        ({"method_kwargs__fusion": "product"}, "fusion: expected one of sum, concat-style"),
        (
            {"method_kwargs__lower": 0.95},
            r"\.lower: expected a number below upper \(0.9\), got 0.95",
        ),
        ({"method_kwargs__temperature": 0.0}, "temperature: expected a number above 0"),
        ({"data__sampler": "shuffle"}, "data.sampler is 'shuffle'. Set data.sampler=paired"),
        ({"optimizer__batch_size": 7}, "even number, it counts both images of a pair; got 7"),
        ({"augmentations__1__num_crops": 2}, "exactly 2 large views .* give 3 large and 0 small"),
        ({"augmentations__1__crop_size": 8}, "give 1 large and 1 small"),
        (
            {"augmentations__0__horizontal_flip": {"prob": 0.5}},
            r"augmentations\[0\] has horizontal_flip. Take augmentations=small_plain_strong",
        ),
        ({"augmentations__0__rrc": {"enabled": True}}, r"augmentations\[0\] has rrc"),
    ],
)
def test_bad_input_is_named(changes, text, tmp_path):
    with pytest.raises(UserError, match=text):
        build(tiny_config(tmp_path, "mttv", **changes))


def test_the_plain_view_can_be_ablated(tmp_path):
    changes = {"augmentations__0__rrc": {"enabled": True}, "method_kwargs__plain_first_view": False}
    model, _ = build(tiny_config(tmp_path, "mttv", **changes))
    assert not model.mttv.plain_first_view
