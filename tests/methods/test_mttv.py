# SPDX-License-Identifier: MIT
"""MTTV: views and fusion, what trains what, pairs over ranks, resume, and what it refuses."""

from dataclasses import asdict

import lightning.pytorch as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from ltplugins.config.resolve import resolve
from ltplugins.config.trainer import scale_learning_rates
from ltplugins.core.errors import UserError
from ltplugins.host.builtin.optim import warmup_cosine
from ltplugins.losses.mttv import filtered_log_probs, reduce_log_probs
from ltplugins.methods.mttv import MTTVConfig
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from tests.kit.paths import ROOT
from tests.kit.ranks import join_ranks, run_ranks
from tests.kit.runs import assert_same_run, build, fit, interrupted, load, step
from tests.kit.tiny import tiny_config
from tests.kit.views import VIEW

WORLD, PAIRS, SIZE = 2, 4, 8
HEADS = {"proj_hidden_dim": 16, "proj_output_dim": 8}


def mttv_config(folder, **changes):
    """A tiny run of MTTV on generated arrays, its plain view first."""
    cfg = tiny_config(folder, "simclr", momentum__final_tau=0.9)
    cfg.method, cfg.method_kwargs = "mttv", dict(HEADS)
    cfg.data.sampler = "paired"
    cfg.augmentations = [{"crop_size": 16, "num_crops": 1}, {**VIEW, "num_crops": 1}]
    for key, value in changes.items():
        target, *path = key.split("__")
        node = cfg
        for part in [target, *path][:-1]:
            node = node[int(part) if part.isdigit() else part]
        node[path[-1] if path else target] = value
    return cfg


def pair_batch(pairs=PAIRS, seed=0, size=SIZE):
    g = torch.Generator().manual_seed(seed)
    views = [torch.randn(2 * pairs, 3, size, size, generator=g) for _ in range(2)]
    return [torch.arange(2 * pairs), views, torch.arange(2 * pairs) % 3]


def linear_model(folder, **changes):
    """Linear maps for networks, in double: BatchNorm would differ per rank by design."""
    model, _ = build(mttv_config(folder, **changes))
    width = model.features_dim
    torch.manual_seed(0)
    for prefix in ("", "momentum_"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, width))
        setattr(model, f"{prefix}backbone", net)
        setattr(model, f"{prefix}projector", nn.Linear(width, 8))
    for twin in (model.momentum_backbone, model.momentum_projector):
        twin.requires_grad_(False)
    return model.double()


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
    cfg = mttv_config(tmp_path)
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
    model, data = build(mttv_config(tmp_path))
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
    model, data = build(mttv_config(tmp_path, data__engine=engine))
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
    model, data = build(mttv_config(tmp_path, **changes))
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
        cfg = scale_learning_rates(resolve(compose("mttv")), world_size=1)
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


def test_bf16_autocast(tmp_path):
    model, data = build(mttv_config(tmp_path))
    trainer = fit(model, data, max_epochs=1, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["train_nce_loss_epoch"])


def test_frozen_loss(tmp_path):
    """Five steps of one start; another number is another method: say why in the changelog."""
    model = linear_model(tmp_path)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for seed in range(5):
        optimizer.zero_grad()
        loss = step(model, in_double(pair_batch(seed=seed)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(
        [4.178503108, 4.000411573, 3.181799561, 3.498269335, 2.899614587], abs=1e-6
    )


@pytest.mark.parametrize(("epoch", "batch"), [(1, 0), (2, 3)], ids=["between", "inside"])
def test_a_resumed_run_equals_the_unbroken_one(epoch, batch, tmp_path, monkeypatch):
    changes = {"max_epochs": 4, "log_every_n_steps": 1}
    whole = pretrain(mttv_config(tmp_path, **changes, output_dir=str(tmp_path / "whole")))
    cfg = mttv_config(tmp_path, **changes, output_dir=str(tmp_path / "broken"))
    interrupted(cfg, epoch, batch, monkeypatch)
    assert_same_run(whole, pretrain(cfg))
    assert {"train_nce_loss_epoch", "train_acc1_epoch"} <= set(read_metrics(whole / "metrics.csv"))
    assert "momentum_projector.0.weight" in load(whole / "checkpoints/last.ckpt")["state_dict"]


def loss_and_gradients(folder, batch):
    model = linear_model(folder)
    loss = step(model, in_double(batch))
    loss.backward()
    grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "grads": grads}


def on_rank(rank, world, folder):
    join_ranks(rank, world, folder, seconds=60)
    indexes, views, targets = pair_batch()
    rows = torch.arange(2 * PAIRS).view(-1, 2)[rank::world].reshape(-1)  # as the sampler shares
    own = [indexes[rows], [view[rows] for view in views], targets[rows]]
    torch.save(loss_and_gradients(folder / str(rank), own), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_one(tmp_path):
    for name in ("0", "1", "whole"):
        (tmp_path / name).mkdir()
    run_ranks(on_rank, WORLD, tmp_path, timeout=120)
    whole = loss_and_gradients(tmp_path / "whole", pair_batch())
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    mean = sum(part["loss"] for part in parts) / WORLD
    torch.testing.assert_close(mean, whole["loss"], rtol=1e-10, atol=1e-12)
    for key, expected in whole["grads"].items():
        mean = sum(part["grads"][key] for part in parts) / WORLD
        torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-12, msg=key)


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
        build(mttv_config(tmp_path, **changes))


def test_the_plain_view_can_be_ablated(tmp_path):
    changes = {"augmentations__0__rrc": {"enabled": True}, "method_kwargs__plain_first_view": False}
    model, _ = build(mttv_config(tmp_path, **changes))
    assert not model.mttv.plain_first_view
