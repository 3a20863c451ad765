# SPDX-License-Identifier: MIT
"""More views over every base: the mean over pairs, one forward a view, state, filter, ranks."""

import copy
from itertools import combinations

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import nn

from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from tests.kit.linear import linear_maps
from tests.kit.runs import build, fit, step
from tests.kit.tiny import KWARGS, tiny_config

WORLD, PER_RANK, SIZE, VIEWS = 2, 4, 8, 3
BAND = {"lower": 0.02, "upper": 0.5}


def mv_config(folder, base="simclr", views=VIEWS, block=None, **changes):
    cfg = tiny_config(folder, base, **changes)
    cfg.method, cfg.method_kwargs.mv = f"mv_{base}", block or {}
    cfg.augmentations[0].num_crops = views
    return cfg


def noise(n=6, views=VIEWS, seed=0, size=16):
    g = torch.Generator().manual_seed(seed)
    images = [torch.randn(n, 3, size, size, generator=g) for _ in range(views)]
    return [torch.arange(n), images, torch.arange(n) % 3]


@pytest.mark.parametrize("base", KWARGS)
def test_loss_is_the_mean_of_the_base_over_pairs(base, tmp_path):
    """Against the base's own class with the same weights, from the same state for each pair."""
    model, _ = build(mv_config(tmp_path, base))
    plain, _ = build(tiny_config(tmp_path, base))
    plain.load_state_dict(model.state_dict())
    indexes, views, targets = noise()
    losses = [
        step(copy.deepcopy(plain), [indexes, [views[i], views[j]], targets])
        for i, j in combinations(range(VIEWS), 2)
    ]
    loss = step(model, [indexes, views, targets])
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert len({round(float(x), 6) for x in losses}) == 3  # or any one of them would do
    loss.backward()
    assert all(p.grad is not None for p in model.projector.parameters() if p.requires_grad)


@pytest.mark.parametrize("base", ["byol", "mocov2plus", "simclr"])
def test_each_view_is_forwarded_once(base, tmp_path):
    model, _ = build(mv_config(tmp_path, base, views=4))
    calls = {"backbone": 0, "momentum_backbone": 0}
    for name in calls:
        if hasattr(model, name):

            def count(*_, name=name):
                calls[name] += 1

            getattr(model, name).register_forward_hook(count)
    step(model, noise(views=4))
    step(model, noise(views=4, seed=1))
    twin = 8 if hasattr(model, "momentum_backbone") else 0
    assert calls == {"backbone": 8, "momentum_backbone": twin}
    assert model._mv_outputs == {}
    assert model._views == []


def test_a_queue_moves_on_by_one_step(tmp_path):
    model, _ = build(mv_config(tmp_path, "mocov2plus", views=4))
    before = model.queue.clone()
    step(model, noise(views=4))
    assert int(model.queue_ptr) == 6
    changed = (model.queue != before).any(dim=1)[0].nonzero().flatten().tolist()
    assert changed == list(range(6))
    # The running statistics have seen all four views: they are no state of a pair.
    seen = {int(m.num_batches_tracked) for m in model.backbone.modules() if hasattr(m, "momentum")}
    assert seen == {4}


@pytest.mark.parametrize("base", ["simclr", "byol", "mocov2plus"])
def test_two_views_reproduce_the_base_bit_for_bit(base, tmp_path):
    plain, data = build(tiny_config(tmp_path, base))
    fit(plain, data, max_epochs=2)
    model, data = build(mv_config(tmp_path, base, views=2))
    fit(model, data, max_epochs=2)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    other, data = build(mv_config(tmp_path, base, views=3))
    fit(other, data, max_epochs=2)
    key = "projector.0.weight"
    assert not torch.equal(other.state_dict()[key], model.state_dict()[key])


def test_filter_takes_the_gradient_of_extreme_pairs_only(tmp_path):
    """Two views equal for image 0: with the filter it pulls no more, the others as before."""
    model = linear_model(tmp_path, "byol", 2, {"lower": 0.0, "upper": 0.99})
    free = linear_model(tmp_path, "byol", 2, {})
    indexes, views, targets = noise(views=2, size=SIZE)
    views = [view.double() for view in views]
    views[1][0] = views[0][0]
    grads = []
    for m in (model, free):
        outs = []
        forward = m.projector.register_forward_hook(lambda _m, _i, z, o=outs: o.append(z))
        loss = step(m, [indexes, views, targets])
        forward.remove()
        grads.append([torch.autograd.grad(loss, z, retain_graph=True)[0] for z in outs])
        grads[-1].append(loss.detach())
    filtered, unfiltered = grads
    for with_filter, without in zip(filtered[:2], unfiltered[:2], strict=True):
        assert with_filter[0].abs().max() == 0
        assert without[0].abs().max() > 0
        torch.testing.assert_close(with_filter[1:], without[1:])
    torch.testing.assert_close(filtered[2], unfiltered[2])  # the value is the same


def test_online_knn_sees_each_image_twice(tmp_path):
    model, _ = build(mv_config(tmp_path, views=4, knn_eval={"enabled": True, "k": 2}))
    fed = []

    class Recorder(nn.Module):
        def forward(self, **kwargs):
            fed.append(len(kwargs["train_targets"]))

    model.knn = Recorder()
    step(model, noise(views=4))
    assert fed == [12]
    assert model.knn_eval


def linear_model(folder, base, views=VIEWS, block=BAND):
    return linear_maps(build(mv_config(folder, base, views, block))[0])


def test_packaged_augmentations_follow_the_number_of_views():
    with initialize_config_module("ltplugins.conf", version_base="1.2"):
        for overrides, views in (
            (["method=mv_byol"], 4),
            (["method=mv_simclr", "method_kwargs.mv.views=3"], 3),
            (["method=simclr"], 2),
        ):
            assert resolve(compose("pretrain", overrides)).host.data.num_large_crops == views


@pytest.mark.parametrize(
    ("views", "block", "text"),
    [
        (2, {"views": 4}, r"mv_simclr takes exactly 4 large views .* give 2. Set num_crops"),
        (1, {}, "mv_simclr needs 2 large views .* give 1"),
        (2, {"views": 1}, "mv.views: expected a whole number of 2 or more, got 1"),
        (
            2,
            {"lower": 0.9, "upper": 0.1},
            r"mv.lower: expected a number below upper \(0.1\), got 0.9",
        ),
        (2, {"upperr": 0.9}, r"mv.upperr'. Did you mean 'upper'"),
    ],
)
def test_bad_options_are_named(views, block, text, tmp_path):
    with pytest.raises(UserError, match=text):
        build(mv_config(tmp_path, views=views, block=block))
