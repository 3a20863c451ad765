# SPDX-License-Identifier: MIT
"""COLT over every base: scores, selection, growing epochs, resume, and nothing when it is off."""

import logging
import math
from itertools import pairwise

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ltplugins
from ltplugins.core.errors import UserError
from ltplugins.losses.colt import tail_scores
from ltplugins.methods.colt import COLTConfig
from ltplugins.methods.parts.growing import steps_until
from ltplugins.methods.parts.ood_subset import choose_subset, clusters_and_means
from tests.kit.runs import build, quiet_trainer
from tests.kit.tiny import tiny_config

ltplugins.register()
IMAGES, POOL, BATCH, BUDGET = 42, 24, 8, 8


def colt(folder, method="colt_simclr", **changes):
    """``a=b`` sets method_kwargs.colt.a, other keys as in ``tiny_config``."""
    ours = {k for k in changes if k in COLTConfig.__dataclass_fields__}
    own = {f"method_kwargs__colt__{k}": changes.pop(k) for k in ours}
    return build(tiny_config(folder, method, **own, **changes))


class Watch(pl.Callback):
    """What was drawn and how the rates went."""

    def __init__(self, stop_after=None, path=None):
        self.drawn, self.rates, self.tau, self.subsets = [], [], [], []
        self.stop_after, self.path = stop_after, path

    def on_train_epoch_start(self, trainer, pl_module):
        self.subsets.append(trainer.datamodule.ood_subset.tolist())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.drawn.append((trainer.current_epoch, batch[0].tolist()))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        if hasattr(pl_module, "momentum_updater"):
            self.tau.append(pl_module.momentum_updater.cur_tau)
        if len(self.drawn) == self.stop_after:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def fit(model, data, watch=None, ckpt=None, **kwargs):
    callbacks = [watch or Watch()]
    trainer = quiet_trainer(callbacks=callbacks, **{"max_epochs": model.max_epochs, **kwargs})
    try:
        trainer.fit(model, datamodule=data, ckpt_path=ckpt)
    except (KeyboardInterrupt, SystemExit):
        assert watch is not None
    return trainer


def test_without_weight_and_images_it_is_the_base_bit_for_bit(tmp_path):
    base, data = build(tiny_config(tmp_path, "simclr"))
    fit(base, data)
    # A warm-up as long as the run: no OOD image is ever drawn. A budget of 0: none is chosen.
    for change in ({"warmup": 3}, {"budget": 0}, {"budget": 0, "weight": 0.0}):
        model, data = colt(tmp_path, **change)
        fit(model, data)
        state = model.state_dict()
        for key, value in base.state_dict().items():
            assert torch.equal(value, state[key]), (change, key)
    with_images, data = colt(tmp_path)
    fit(with_images, data)
    key = "backbone.conv1.0.weight"
    assert not torch.equal(with_images.state_dict()[key], base.state_dict()[key])
    no_term, data = colt(tmp_path, weight=0.0)
    fit(no_term, data)
    assert not torch.equal(no_term.state_dict()[key], with_images.state_dict()[key])


def test_scores_are_those_of_the_step_and_ood_rows_leave_no_trace(tmp_path, monkeypatch):
    model, data = colt(tmp_path)
    steps = []
    scores = tail_scores

    def recording(z_1, z_2, **kwargs):
        steps.append(scores(z_1, z_2, **kwargs))
        return steps[-1]

    monkeypatch.setattr("ltplugins.methods.colt.tail_scores", recording)
    watch = Watch()
    fit(model, data, watch)
    expected = {}
    for (_, indexes), values in zip(watch.drawn, steps, strict=True):
        for i, value in zip(indexes, values.tolist(), strict=True):
            expected[i] = value if i not in expected else 0.97 * expected[i] + 0.03 * value
    assert max(expected) >= IMAGES  # OOD images were in the batches
    for i in range(IMAGES):
        assert model.colt_memory[i].item() == pytest.approx(expected.get(i, 0.0), rel=1e-5)


@pytest.mark.parametrize(
    ("warmup", "interval", "chosen_for"),
    [(1, 2, [1, 3, 5]), (2, 1, [2, 3, 4, 5]), (0, 4, [1, 5]), ("50%", "100%", [3]), (6, 1, [])],
)
def test_schedule_of_the_selections(warmup, interval, chosen_for, tmp_path, monkeypatch):
    """A warm-up of 0 is one of 1: before it there is no score."""
    calls = []
    monkeypatch.setattr(
        "ltplugins.methods.colt.choose_subset",
        lambda model, *args: calls.append(model.current_epoch + 1) or (np.arange(BUDGET), None),
    )
    model, data = colt(tmp_path, warmup=warmup, interval=interval, max_epochs=6)
    watch = Watch()
    fit(model, data, watch)
    assert calls == chosen_for
    first = chosen_for[0] if chosen_for else 6
    assert [len(s) for s in watch.subsets] == [0] * first + [BUDGET] * (6 - first)


@pytest.mark.parametrize("warmup", [1, 3])
def test_schedules_end_where_the_run_ends(warmup, tmp_path):
    changes = {"max_epochs": 5, "scheduler__warmup_epochs": 2, "scheduler__min_lr": 1e-4}
    model, data = colt(tmp_path, "colt_byol", warmup=warmup, **changes)
    watch = Watch()
    trainer = fit(model, data, watch)
    total = 5 * warmup + 6 * (5 - warmup)
    warm = 5 + (6 if warmup == 1 else 5)
    assert trainer.global_step == trainer.estimated_stepping_batches == len(watch.rates) == total
    assert watch.rates[warm - 1] == pytest.approx(model.lr) == max(watch.rates)
    assert watch.rates[-1] == pytest.approx(1e-4)
    rises = [b > a for a, b in zip(watch.rates, watch.rates[1:], strict=False)]
    assert rises == [True] * (warm - 1) + [False] * (total - warm)
    assert model.momentum_updater.cur_tau == pytest.approx(1.0)
    assert watch.tau == sorted(watch.tau)
    assert model.warmup_epochs == 2


@pytest.mark.parametrize(
    ("kwargs", "steps"),
    [({"limit_train_batches": 4}, 12), ({"limit_train_batches": 0.5}, 8), ({"max_steps": 7}, 7)],
)
def test_the_trainers_limits_count(kwargs, steps, tmp_path):
    model, data = colt(tmp_path)
    trainer = fit(model, data, **kwargs)
    assert trainer.estimated_stepping_batches == trainer.global_step == steps


def test_steps_of_growing_epochs():
    class Trainer:
        limit_train_batches = 1.0
        accumulate_grad_batches = 2

    def batches(epoch):
        return 5 if epoch < 2 else 8

    assert [steps_until(e, batches, Trainer) for e in (0, 1, 2, 3, 2.5)] == [0, 3, 6, 10, 8]


def test_the_selection_is_the_sheets(tmp_path):
    """Steps 4a to 4e again, with loops, on the trained model."""
    model, data = colt(tmp_path, num_clusters=4)
    fit(model, data)
    model.train()
    state, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    norm = {k: v.clone() for k, v in model.named_buffers() if "running" in k}
    chosen, sizes = choose_subset(
        model, data, model.colt_memory, model.colt_memory_filled, 9, model.colt
    )
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, norm[k]) for k, v in model.named_buffers() if k in norm)

    from sklearn.cluster import KMeans

    model.eval()
    with torch.no_grad():
        feats, pool = (
            F.normalize(torch.cat([model(x)["z"] for x, _ in data.stream(part, 0, size)]), dim=1)
            for part, size in (("id", IMAGES), ("ood", POOL))
        )
    fitted = KMeans(4, random_state=0, n_init=10).fit(feats.numpy())
    means = []
    for c in range(4):
        members = [
            i for i in range(IMAGES) if fitted.labels_[i] == c and model.colt_memory_filled[i]
        ]
        means.append(sum(model.colt_memory[i].item() for i in members) / len(members))
    mean = sum(means) / 4
    std = math.sqrt(sum((m - mean) ** 2 for m in means) / 3)
    weights = [math.exp(-(m - mean) / std) for m in means]
    quota = [9 * w / sum(weights) for w in weights]
    budgets = [int(q) for q in quota]
    for c in sorted(range(4), key=lambda c: budgets[c] - quota[c])[: 9 - sum(budgets)]:
        budgets[c] += 1
    assert sum(budgets) == 9
    centers = torch.from_numpy(fitted.cluster_centers_)
    free, expected = list(range(POOL)), []
    for c, budget in enumerate(budgets):
        free.sort(key=lambda j: -float(F.cosine_similarity(pool[j], centers[c], dim=0)))
        expected += free[:budget]
        free = free[budget:]
    # This small network puts many images into one point: compare cosines, not positions.
    assert len(set(chosen.tolist())) == 9 and sizes.tolist() == budgets
    owner = np.repeat(np.arange(4), budgets)
    got, best = (
        [
            float(F.cosine_similarity(pool[j], centers[c], dim=0))
            for j, c in zip(js, owner, strict=True)
        ]
        for js in (chosen.tolist(), expected)
    )
    assert got == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("engine", ["workers", "batched"])
def test_a_run_that_is_stopped_anywhere_ends_as_the_unbroken_one(engine, tmp_path):
    """5 epochs of 5, 6, 6, 6, 6 batches, subsets for epochs 1 and 3: stops in and between them."""
    unbroken, data = colt(tmp_path, max_epochs=5, data__engine=engine)
    whole = Watch()
    fit(unbroken, data, whole)
    assert whole.subsets[1] == whole.subsets[2]
    assert whole.subsets[3] == whole.subsets[4] != []

    stops, path = [0, 3, 7, 14, 20, 25, len(whole.drawn)], None
    for start, stop in pairwise(stops):
        model, data = colt(tmp_path, max_epochs=5, data__engine=engine)
        part = Watch(stop - start if stop != stops[-1] else None, tmp_path / f"{stop}.ckpt")
        fit(model, data, part, ckpt=path)
        path = tmp_path / f"{stop}.ckpt"
        assert part.drawn == whole.drawn[start:stop]
        assert part.rates == whole.rates[start:stop]
    state = model.state_dict()
    for key, value in unbroken.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_missed_selection_is_made_up_for(tmp_path, caplog):
    """A checkpoint of an epoch's last batch, before its end: Lightning skips that end on resume."""
    model, data = colt(tmp_path, max_epochs=5, interval=3)
    path = tmp_path / "stop.ckpt"
    fit(model, data, Watch(5, path))
    again, data = colt(tmp_path, max_epochs=5, interval=3)
    watch = Watch()
    fit(again, data, watch, ckpt=path)
    assert max(i for epoch, batch in watch.drawn for i in batch if epoch == 1) < IMAGES
    assert [len(s) for s in watch.subsets] == [BUDGET] * 3
    assert int(again.colt_selected_for) == 4


def test_a_pool_smaller_than_the_budget_is_taken_whole(tmp_path, caplog):
    model, data = colt(tmp_path, budget=1000)
    watch = Watch()
    with caplog.at_level(logging.WARNING, "ltplugins"):
        trainer = fit(model, data, watch)
    assert "colt.budget asks for 1000 OOD images, the pool has 24" in caplog.text
    assert sorted(watch.subsets[1]) == list(range(POOL))
    assert trainer.global_step == trainer.estimated_stepping_batches == 5 + 8 + 8


def test_budget_as_a_share_of_the_training_images(tmp_path):
    model, data = colt(tmp_path, budget="25%")
    watch = Watch()
    fit(model, data, watch)
    assert len(watch.subsets[1]) == round(0.25 * IMAGES)


@pytest.mark.parametrize(
    "change", [{"assignment": "fair"}, {"denominator": "cross_domain"}, {"topk": 0.1}]
)
def test_options_train(change, tmp_path):
    model, data = colt(tmp_path, **change)
    trainer = fit(model, data)
    assert torch.isfinite(trainer.callback_metrics["train_colt_loss_epoch"])


def test_gh_over_colt_over_simclr(tmp_path):
    """GH's memory, prior and term are of the training images alone."""
    model, data = colt(tmp_path, "gh_colt_simclr", max_epochs=3)
    assert type(model).__name__ == "GHCOLTSimCLR"
    assert model.cfg.method == "simclr"
    watch = Watch()
    trainer = fit(model, data, watch)
    assert [len(s) for s in watch.subsets] == [0, BUDGET, BUDGET]
    metrics = trainer.callback_metrics
    assert torch.isfinite(metrics["train_gh_loss_epoch"])
    assert torch.isfinite(metrics["train_colt_loss_epoch"])
    assert model.gh_memory.shape == (IMAGES, 5)
    assert torch.equal(model.gh_memory_filled, model.colt_memory_filled)
    assert model._views is None  # nothing of the last step is kept alive


def test_gh_over_colt_adds_both_terms(tmp_path):
    """At weight 0 either term vanishes: the rest is the other wrapper, bit for bit."""
    both, data = colt(tmp_path, "gh_colt_simclr", method_kwargs__gh__weight=0.0)
    fit(both, data)
    alone, data = colt(tmp_path)
    fit(alone, data)
    state = both.state_dict()
    for key, value in alone.state_dict().items():
        assert torch.equal(value, state[key]), key


FROZEN = [3.565941, 3.542526, 3.332324, 3.216984, 4.136677, 3.334675, 4.559492]


def test_frozen_losses(tmp_path):
    """Seven steps, the last two with OOD images. To recapture: print ``losses``.

    Another order of summation in NT-Xent alone changes the last one by up to 0.6 %.
    """
    model, data = colt(tmp_path)
    losses = []

    class Record(Watch):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            losses.append(float(outputs["loss"]))

    fit(model, data, Record(), max_steps=7)
    assert losses[:6] == pytest.approx(FROZEN[:6], rel=1e-4)
    assert losses[6] == pytest.approx(FROZEN[6], rel=2e-2)


class Options:
    num_clusters, cluster_seed, minibatch_above = 3, 0, 100


@pytest.mark.parametrize("minibatch_above", [10, 1000])
def test_clusters_and_their_means(minibatch_above):
    g = torch.Generator().manual_seed(0)
    centers = torch.eye(3)
    feats = F.normalize(centers.repeat_interleave(20, 0) + 0.05 * torch.randn(60, 3, generator=g))
    scores = torch.tensor([0.9, 0.5, 0.1]).repeat_interleave(20)
    filled = torch.ones(60, dtype=torch.bool)
    filled[:5], scores[:5] = False, 77.0  # without a score: they do not count
    options = Options()
    options.minibatch_above = minibatch_above
    found, means = clusters_and_means(feats, scores, filled, options)
    order = (F.normalize(found, dim=1) @ centers).argmax(dim=1)
    assert sorted(order.tolist()) == [0, 1, 2]
    assert means.tolist() == pytest.approx([[0.9, 0.5, 0.1][int(c)] for c in order])


def test_clusters_of_few_of_equal_and_of_unscored_images():
    everything = torch.ones(2, dtype=torch.bool)
    found, means = clusters_and_means(torch.eye(2), torch.tensor([0.2, 0.4]), everything, Options())
    assert sorted(means.tolist()) == pytest.approx([0.2, 0.4])
    assert len(found) == 2
    collapsed = F.normalize(torch.ones(30, 3), dim=1)
    found, means = clusters_and_means(
        collapsed, torch.full((30,), 0.3), torch.ones(30, dtype=torch.bool), Options()
    )
    assert means.tolist() == pytest.approx([0.3])
    _, means = clusters_and_means(torch.eye(3), torch.rand(3), torch.zeros(3).bool(), Options())
    assert means.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(UserError, match="training has diverged"):
        clusters_and_means(
            torch.full((4, 3), math.nan), torch.ones(4), torch.ones(4).bool(), Options()
        )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"topkk": 3}, r"colt.topkk'. Did you mean 'topk'"),
        (
            {"topk": 0},
            "colt.topk: expected a whole number of 1 or more or .* at most 1, got 0",
        ),
        (
            {"topk": 1.5},
            "colt.topk: expected a whole number of 1 or more or a number above 0 .* 1, got 1.5",
        ),
        ({"num_clusters": 0}, "colt.num_clusters: expected a whole number of 1 or more, got 0"),
        ({"momentum": 1.0}, "colt.momentum: expected a number of 0 or more and below 1, got 1"),
        (
            {"cluster_temperature": 0.0},
            "colt.cluster_temperature: expected a number above 0, got 0.0",
        ),
        ({"budget": "much"}, "colt.budget: expected a number of images of 0 or more, or a share"),
        ({"budget": -1}, "such as '50%', got -1"),
        ({"warmup": "half"}, "colt.warmup: expected a number of epochs"),
        ({"assignment": "far"}, "Did you mean 'fair'"),
    ],
)
def test_bad_options_are_named(changes, text, tmp_path):
    own = {f"method_kwargs__colt__{k}": v for k, v in changes.items()}
    with pytest.raises(UserError, match=text):
        build(tiny_config(tmp_path, "colt_simclr", **own))


def test_without_a_pool_it_is_refused(tmp_path):
    changes = {"data__ood": None, "data__sampler": "shuffle"}
    with pytest.raises(UserError, match=r"data.ood names none. Set data.ood, such as"):
        build(tiny_config(tmp_path, "colt_simclr", **changes))


def test_the_hosts_own_main_is_refused(tmp_path):
    model, data = colt(tmp_path)
    trainer = quiet_trainer(max_epochs=1)
    with pytest.raises(UserError, match=r"Run it with ltplugins pretrain or scripts/pretrain.py"):
        trainer.fit(model, data.train_dataloader())


def test_two_stage_rates_are_refused_in_growing_epochs(tmp_path):
    model, data = colt(tmp_path, "gh_colt_simclr", method_kwargs__gh__two_stage_lr=True)
    with pytest.raises(UserError, match="two_stage_lr counts epochs of equal length"):
        fit(model, data)
