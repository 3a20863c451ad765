# SPDX-License-Identifier: MIT
"""SDCLR over every base: two branches by hand, masks, BatchNorms, evaluation, resume, refusals."""

import copy
import itertools

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from ltplugins.core.errors import UserError
from ltplugins.losses.sdclr import magnitude_masks, sparsity
from ltplugins.losses.terms.bases import nt_xent
from ltplugins.methods.sdclr import SDCLRConfig, SDCLRMixin
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from tests.kit.linear import five_losses, linear_networks, noise
from tests.kit.runs import build, fit, step
from tests.kit.tiny import KWARGS, tiny_config

RATIO = 0.6


def sdclr_config(folder, base="simclr", block=None, **changes):
    # VICReg, plain too, diverges on noise at the rate of the others.
    rate = {"optimizer__lr": 0.005} if base == "vicreg" else {}
    cfg = tiny_config(folder, base, **{**rate, **changes})
    cfg.method = f"sdclr_{base}"
    cfg.method_kwargs.sdclr = {"prune_ratio": RATIO, **(block or {})}
    return cfg


def pruned_model(folder, base="simclr", block=None, **changes):
    """A model whose mask is drawn, as after the start of an epoch, and whose norms differ."""
    model, data = build(sdclr_config(folder, base, block, **changes))
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.sdclr_norms.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    model.on_train_epoch_start()
    return model, data


def backbone_weights(model):
    kinds = (nn.Conv2d, nn.Linear)
    return {
        f"backbone.{name}.weight": module.weight
        for name, module in model.backbone.named_modules()
        if isinstance(module, kinds)
    }


def by_hand(model):
    """The pruned branch as a network of its own: masked weights, the second BatchNorms."""
    twin = copy.deepcopy(model)
    tensors = dict(twin.named_parameters()) | dict(twin.named_buffers())
    names, weights = zip(*backbone_weights(model).items(), strict=True)
    masks = dict(zip(names, magnitude_masks(weights, RATIO), strict=True))
    with torch.no_grad():
        for name, mask in masks.items():
            tensors[name].mul_(mask)
        for name, value in tensors.items():
            if name.startswith("sdclr_norms."):
                tensors[name.removeprefix("sdclr_norms.")].copy_(value)
    return twin, masks


def test_loss_and_gradients_are_the_two_official_passes_on_two_networks(tmp_path):
    """nt_xent(full(view 1), pruned(view 2)), twice, the other branch detached each time."""
    model, _ = pruned_model(tmp_path)
    model.double()
    full, (twin, masks) = copy.deepcopy(model), by_hand(model)
    batch = noise(dtype=torch.float64)
    ids = batch[0].repeat(2)
    z_1 = full.projector(full.backbone(batch[1][0]))
    z_2 = twin.projector(twin.backbone(batch[1][1]))
    first = nt_xent(torch.cat([z_1, z_2.detach()]), ids, 0.2)
    second = nt_xent(torch.cat([z_1.detach(), z_2]), ids, 0.2)
    (first + second).backward()

    model.classifier.requires_grad_(False)
    loss = step(model, batch)
    loss.backward()
    class_loss = [
        nn.functional.cross_entropy(m.classifier(m.backbone(x)), batch[2])
        for m, x in ((full, batch[1][0]), (twin, batch[1][1]))
    ]
    torch.testing.assert_close(loss.detach(), (first + sum(class_loss) / 2).detach())

    theirs = dict(twin.named_parameters())
    for name, p in full.named_parameters():
        if name.startswith(("classifier", "sdclr_norms")):
            continue
        expected = p.grad
        host_name = name in dict(model.sdclr_norms.named_parameters())
        if not host_name:  # shared: what both branches say, the pruned one through the mask
            expected = expected + theirs[name].grad * masks.get(name, 1)
        got = model.get_parameter(name).grad
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10, msg=name)
        if host_name:
            own = model.sdclr_norms.get_parameter(name).grad
            torch.testing.assert_close(own, theirs[name].grad, rtol=1e-8, atol=1e-10, msg=name)
    assert max(theirs[name].grad.abs().max() for name in masks) > 1e-3


def test_each_branch_moves_its_own_statistics(tmp_path):
    model, _ = pruned_model(tmp_path)
    full, (twin, _) = copy.deepcopy(model), by_hand(model)
    batch = noise()
    step(model, batch)
    full.backbone(batch[1][0])
    twin.backbone(batch[1][1])
    for name, buffer in model.sdclr_norms.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), full.get_buffer(name))
        torch.testing.assert_close(buffer, twin.get_buffer(name))
        if name.endswith("running_mean"):
            assert not torch.allclose(buffer, model.get_buffer(name))
        if name.endswith("num_batches_tracked"):
            assert int(buffer) == int(model.get_buffer(name)) == 1


@pytest.mark.parametrize("base", KWARGS)
def test_an_epoch_over_every_base(base, tmp_path):
    """Every parameter learns, the twin's is no business of ours, the host's keys are the host's."""
    model, data = build(sdclr_config(tmp_path, base))
    before = {k: v.clone() for k, v in model.named_parameters()}
    trainer = fit(model, data, max_epochs=1)
    assert all(torch.isfinite(v) for v in trainer.callback_metrics.values())
    assert float(trainer.callback_metrics["train_sdclr_sparsity_epoch"]) == pytest.approx(
        RATIO, abs=1e-4
    )
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, name
            assert not torch.equal(p, before[name]) or p.grad.abs().max() == 0, name
    keys = {k for k in model.state_dict() if not k.startswith("sdclr_")}
    assert keys == set(build(tiny_config(tmp_path, base))[0].state_dict())
    assert not any("momentum_" in name for name, _ in model.sdclr_norms.named_modules())
    online = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and not name.startswith(("momentum_", "sdclr_"))
    ]
    copies = dict(model.sdclr_norms.named_modules())
    assert online
    assert all(name in copies for name in online)


@pytest.mark.parametrize("base", ["byol", "mocov2plus"])
def test_a_momentum_twin_is_of_the_full_network(base, tmp_path):
    """What the twin says of the views is what it says without the wrapper."""
    model, _ = pruned_model(tmp_path, base)
    plain, _ = build(tiny_config(tmp_path, base))
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("sdclr_")}
    plain.load_state_dict(state)
    batch, seen = noise(), []
    for m in (model, plain):
        outs = []
        hook = m.momentum_projector.register_forward_hook(lambda _m, _i, z, o=outs: o.append(z))
        step(m, batch)
        hook.remove()
        seen.append(outs)
    assert len(seen[0]) == 2
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


@pytest.mark.parametrize("base", ["simclr", "byol"])
def test_with_nothing_pruned_the_first_loss_is_the_bases(base, tmp_path):
    model, _ = build(sdclr_config(tmp_path, base, {"prune_ratio": 0.0}))
    model.on_train_epoch_start()
    assert sparsity(list(model.sdclr_masks.buffers())) == 0
    plain, _ = build(tiny_config(tmp_path, base))
    assert torch.equal(step(model, noise()), step(plain, noise()))
    pruned, _ = build(sdclr_config(tmp_path, base))
    pruned.on_train_epoch_start()
    assert not torch.equal(step(pruned, noise()), step(model, noise()))


def test_mask_is_of_the_weights_at_each_epochs_start(tmp_path):
    model, data = build(sdclr_config(tmp_path, optimizer__lr=0.5))
    seen = []

    class Watch(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            self.expected = magnitude_masks(list(backbone_weights(module).values()), RATIO)

        def on_train_batch_end(self, trainer, module, *args):
            masks = list(module.sdclr_masks.buffers())
            assert all(torch.equal(a, b) for a, b in zip(masks, self.expected, strict=True))
            seen.append(torch.cat([m.flatten() for m in masks]))

    fit(model, data, max_epochs=2, callbacks=[Watch()])
    assert len(seen) == 10
    assert int(model.sdclr_epoch) == 1
    assert not torch.equal(seen[4], seen[5])


def test_only_backbone_weights_are_pruned_and_they_stay_whole(tmp_path):
    model, data = build(sdclr_config(tmp_path, block={"prune_ratio": 0.95}))
    masks = dict(model.sdclr_masks.named_buffers())
    assert set(masks) == set(backbone_weights(model))
    fit(model, data, max_epochs=1)
    shared = torch.cat([w.flatten() for w in backbone_weights(model).values()])
    assert (shared == 0).float().mean() < 0.01


def test_validation_and_forward_are_of_the_full_network(tmp_path):
    model, _ = pruned_model(tmp_path)
    plain, _ = build(tiny_config(tmp_path, "simclr"))
    step(model, noise())  # the exchange of a step is undone after it
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("sdclr_")}
    plain.load_state_dict(state)
    model.eval(), plain.eval()
    x = noise()[1][0]
    out, expected = model(x), plain(x)
    assert torch.equal(out["z"], expected["z"])
    val = model.base_validation_step(x, noise()[2])
    assert torch.equal(val["logits"], expected["logits"])


def test_online_knn_learns_from_the_full_network(tmp_path):
    model, _ = pruned_model(tmp_path, knn_eval={"enabled": True, "k": 2})
    fed = []

    class Recorder(nn.Module):
        def forward(self, **kwargs):
            fed.append(kwargs)

    model.knn = Recorder()
    indexes, views, targets = noise()
    expected = copy.deepcopy(model).backbone(views[0])
    targets[2] = -1
    step(model, [indexes, views, targets])
    assert len(fed) == 1
    torch.testing.assert_close(fed[0]["train_features"], expected.detach())
    assert fed[0]["train_targets"].tolist() == targets.tolist()
    assert model.knn_eval


def test_optimizer_groups(tmp_path):
    model, _ = build(sdclr_config(tmp_path, "byol"))
    names = [group["name"] for group in model.learnable_params]
    assert names == ["backbone", "classifier", "projector", "predictor", "sdclr_norms"]
    params = list(itertools.chain(*(list(g["params"]) for g in model.learnable_params)))
    assert len({id(p) for p in params}) == len(params)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in params}


def test_a_stem_swapped_after_the_method_was_built(tmp_path):
    """As solo-learn's data-set rule is overruled: another first convolution, another mask."""
    model, _ = build(sdclr_config(tmp_path))
    name = next(iter(backbone_weights(model))).removesuffix(".weight")
    *path, last = name.split(".")
    width = model.get_submodule(name).out_channels
    model.get_submodule(".".join(path)).add_module(last, nn.Conv2d(3, width, 5, bias=False))
    fresh = copy.deepcopy(model)
    model.setup("fit")
    assert model.get_buffer(f"sdclr_masks.{name}.weight").shape[-1] == 5
    fresh.load_state_dict(model.state_dict())
    assert set(model._ddp_params_and_buffers_to_ignore) == {
        f"sdclr_masks.{name}" for name in backbone_weights(model)
    }


def test_under_gh_z_is_of_both_branches(tmp_path):
    cfg = tiny_config(tmp_path, "gh_simclr")
    cfg.method, cfg.method_kwargs.sdclr = "gh_sdclr_simclr", {"prune_ratio": RATIO}
    model, data = build(cfg)
    trainer = fit(model, data)
    assert torch.isfinite(trainer.callback_metrics["train_gh_loss_epoch"])
    assert float(trainer.callback_metrics["train_sdclr_sparsity_epoch"]) > 0.5
    assert model.gh_memory_filled.sum() > 30


@pytest.mark.parametrize("engine", ["batched", "workers"])
def test_a_run_on_both_engines(engine, tmp_path):
    run = pretrain(sdclr_config(tmp_path, data__engine=engine, max_epochs=2))
    curve = read_metrics(run / "metrics.csv")["train_sdclr_sparsity_epoch"][1]
    assert curve == pytest.approx([RATIO] * 2, abs=1e-4)


def test_frozen_loss(tmp_path):
    """A step in each of five epochs; another number is another method: say why in the changelog."""
    model = linear_networks(build(sdclr_config(tmp_path))[0])
    SDCLRMixin.setup_wrapper(model, SDCLRConfig(RATIO))  # for the networks that are there now

    def next_epoch(number):
        model.sdclr_epoch.fill_(-1)
        model.on_train_epoch_start()

    losses = five_losses(model, next_epoch)
    assert losses == pytest.approx(
        [5.422150519, 4.064140051, 5.845780530, 5.532592246, 6.705063739], abs=1e-6
    )


def test_a_checkpoint_from_the_middle_of_an_epoch_keeps_its_mask(tmp_path):
    model, data = build(sdclr_config(tmp_path))
    fit(model, data, max_epochs=1)
    model.sdclr_epoch.fill_(0)
    masks = [m.clone() for m in model.sdclr_masks.buffers()]
    fresh, data = build(sdclr_config(tmp_path))
    fresh.load_state_dict(model.state_dict())
    fresh.on_train_epoch_start()  # epoch 0 again: the weights have moved since its start
    kept = list(fresh.sdclr_masks.buffers())
    assert all(torch.equal(a, b) for a, b in zip(masks, kept, strict=True))
    fresh.sdclr_epoch.fill_(7)
    fresh.on_train_epoch_start()
    assert not all(torch.equal(a, b) for a, b in zip(masks, kept, strict=True))


def test_evaluation_is_of_the_full_network(tmp_path):
    """The backbone that is evaluated has all weights and the first BatchNorms."""
    from ltplugins.data.sources.build import build_source
    from ltplugins.runs.checkpoint import open_run
    from ltplugins.runs.model import load_trained

    run = open_run(pretrain(sdclr_config(tmp_path, max_epochs=1)))
    backbone = load_trained(run, build_source(run.cfg.data).record).backbone
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, run.state[f"backbone.{name}"]), name
        other = run.state.get(f"sdclr_norms.backbone.{name}")
        assert other is None or name.endswith("tracked") or not torch.equal(value, other)


@pytest.mark.parametrize(
    ("block", "crops", "text"),
    [
        ({"prune_ratio": 1.0}, 2, "prune_ratio: expected a number of 0 or more and below 1, got 1"),
        ({"prune_ratio": -0.1}, 2, "expected a number of 0 or more and below 1, got -0.1"),
        ({"prune_ratio": "90%"}, 2, "sdclr.prune_ratio: expected a number .* got '90%'"),
        ({"ratio": 0.5}, 2, r"sdclr.ratio'. Did you mean 'prune_ratio'"),
        ({}, 3, "sdclr_simclr takes exactly 2 large views .* give 3. Each branch has one"),
        ({}, 1, "sdclr_simclr takes exactly 2 large views .* give 1"),
    ],
)
def test_bad_options_are_named(block, crops, text, tmp_path):
    cfg = sdclr_config(tmp_path, block=block)
    cfg.augmentations[0].num_crops = crops
    with pytest.raises(UserError, match=text):
        build(cfg)
