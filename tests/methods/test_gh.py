# SPDX-License-Identifier: MIT
"""GH over every base of the host: two steps, memory, prior, schedule, and nothing when w = 0."""

from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf

import ltplugins
from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.core.schema import check
from ltplugins.losses.gh import direction_counts, gh_loss, prior_from_counts
from ltplugins.methods.parts.durations import Duration, to_epochs
from tests.kit.runs import assert_resumes, build, fit
from tests.kit.tiny import tiny_config

ltplugins.register()


def test_memory_rows_belong_to_their_images(tmp_path):
    """The rows that a step fills are exactly those of the batch's indexes."""
    model, data = build(tiny_config(tmp_path))
    seen = []
    step = type(model).training_step

    def recording(self, batch, batch_idx):
        seen.extend(batch[0].tolist())
        return step(self, batch, batch_idx)

    type(model).training_step = recording
    try:
        fit(model, data, max_epochs=1, limit_train_batches=2)
    finally:
        type(model).training_step = step
    assert len(seen) == 16
    assert torch.nonzero(model.gh_memory_filled).flatten().tolist() == sorted(seen)
    assert torch.allclose(model.gh_memory[sorted(seen)].norm(dim=1), torch.ones(16), atol=1e-5)


def test_weight_zero_reproduces_the_base_bit_for_bit(tmp_path):
    base_model, data = build(tiny_config(tmp_path, "simclr"))
    fit(base_model, data)
    gh_model, data = build(tiny_config(tmp_path, "gh_simclr", method_kwargs__gh__weight=0.0))
    fit(gh_model, data)
    gh_state = gh_model.state_dict()
    for key, value in base_model.state_dict().items():
        assert torch.equal(value, gh_state[key]), key
    changed, data = build(tiny_config(tmp_path, "gh_simclr"))
    fit(changed, data)
    weight = "projector.0.weight"
    assert not torch.equal(changed.state_dict()[weight], gh_state[weight])


def test_prior_is_recomputed_on_schedule(tmp_path):
    changes = {"method_kwargs__gh__warmup": 2, "method_kwargs__gh__prior_interval": 2}
    model, data = build(tiny_config(tmp_path, max_epochs=5, **changes))
    priors = []

    class Watch(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            priors.append((pl_module.gh_prior.clone(), bool(pl_module.gh_prior_is_set)))

    fit(model, data, max_epochs=5, callbacks=[Watch()])
    assert [is_set for _, is_set in priors] == [False, False, True, True, True]
    assert torch.equal(priors[0][0], torch.full((5,), 0.2))
    # Due after epochs 2 (end of warm-up) and 4; epoch 3 leaves it alone.
    assert torch.equal(priors[2][0], priors[3][0])
    assert torch.equal(model.gh_prior, priors[4][0])


def test_a_step_refreshes_the_prior_after_its_own_loss(tmp_path, monkeypatch):
    """As officially: the loss of a step is of the prior that the steps before it left."""
    given, left = [], []

    def loss(logits_1, logits_2, prior, **options):
        given.append(prior.clone())
        return gh_loss(logits_1, logits_2, prior, **options)

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            left.append(module.gh_prior.clone())
            counts = direction_counts(module.gh_memory, module.gh_memory_filled)
            assert torch.equal(left[-1], prior_from_counts(counts))

    monkeypatch.setattr("ltplugins.methods.gh.gh_loss", loss)
    changes = {"warmup": 0, "ramp": 0, "prior_refresh": "step", "prior_interval": 1}
    changes = {f"method_kwargs__gh__{key}": value for key, value in changes.items()}
    model, data = build(tiny_config(tmp_path, max_epochs=1, **changes))
    fit(model, data, max_epochs=1, callbacks=[Watch()])
    assert len(given) == len(left) == 5
    torch.testing.assert_close(given, [torch.full((5,), 0.2), *left[:-1]], atol=0, rtol=0)
    assert not torch.equal(left[0], left[1])


@pytest.mark.parametrize(
    ("early", "due"),
    [(0, [400, 420, 440, 460, 480, 500]), (1, [399, 419, 439, 459, 479, 499])],
    ids=["cifar", "imagenet"],
)
def test_the_official_epochs_of_recomputation(early, due, tmp_path):
    """The official ImageNet script counts one epoch ahead, from the first recomputation on."""
    kwargs = {"warmup": "80%", "prior_interval": "4%", "prior_early": early}
    changes = {f"method_kwargs__gh__{key}": value for key, value in kwargs.items()}
    model, _ = build(tiny_config(tmp_path, max_epochs=500, **changes))
    found = []
    for epoch in range(1, 501):
        if model._is_prior_epoch(epoch):
            found.append(epoch)
            model.gh_prior_is_set.fill_(True)
    assert found == due


def test_final_prior_is_the_memory_histogram(tmp_path):
    model, data = build(tiny_config(tmp_path, max_epochs=2))
    fit(model, data, max_epochs=2)
    counts = direction_counts(model.gh_memory, model.gh_memory_filled)
    assert torch.equal(model.gh_prior, prior_from_counts(counts))


def test_base_reads_its_own_name_and_no_block_of_ours(tmp_path):
    cfg = tiny_config(tmp_path)
    model, _ = build(cfg)
    assert model.cfg.method == "simclr"
    assert "gh" not in model.cfg.method_kwargs
    assert cfg.method == "gh_simclr"


def test_two_stage_learning_rate(tmp_path):
    changes = {
        "method_kwargs__gh__two_stage_lr": True,
        "method_kwargs__gh__warmup": 4,
        "scheduler__warmup_epochs": 2,
    }
    model, data = build(tiny_config(tmp_path, max_epochs=8, **changes))
    rates = []

    class Watch(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"] / pl_module.lr)

    trainer = fit(model, data, max_epochs=8, callbacks=[Watch()])
    assert rates[2] == pytest.approx(1.0)  # end of the linear warm-up
    assert rates[3] == pytest.approx(0.8)  # half way down to 0.6
    assert rates[4] == pytest.approx(0.6)  # the restart
    assert rates[6] == pytest.approx(0.3)  # half way to the end
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_a_killed_run_in_two_stages_ends_as_the_unbroken_one(tmp_path, monkeypatch):
    kwargs = {"two_stage_lr": True, "warmup": 1, "prior_refresh": "step", "prior_early": 1}
    changes = {f"method_kwargs__gh__{key}": value for key, value in kwargs.items()}
    config = partial(tiny_config, tmp_path, max_epochs=3, log_every_n_steps=1, **changes)
    assert_resumes(config, tmp_path, monkeypatch)


def test_two_stages_of_a_rate_of_0(tmp_path):
    changes = {"method_kwargs__gh__two_stage_lr": True, "optimizer__lr": 0.0}
    model, data = build(tiny_config(tmp_path, **changes))
    trainer = fit(model, data)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_memory_in_half_precision(dtype, tmp_path):
    model, data = build(tiny_config(tmp_path, method_kwargs__gh__memory_dtype=dtype))
    fit(model, data)
    assert model.gh_memory.dtype == getattr(torch, dtype)
    assert torch.isfinite(model.gh_memory.float()).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method_kwargs__gh__num_directions": 10}, "exact simplex only in dimension 9 or more"),
        ({"method_kwargs__gh__tempreature": 1.0}, r"gh.tempreature'. Did you mean 'temperature'"),
        ({"method_kwargs__gh__warmup": "half"}, "gh.warmup: expected a number of epochs"),
        ({"method_kwargs__gh__num_iters": "many"}, "gh.num_iters: expected a whole number"),
        ({"method_kwargs__gh__memory_dtype": "int8"}, "expected one of float32"),
    ],
)
def test_bad_options_are_named(changes, text, tmp_path):
    with pytest.raises(UserError, match=text):
        build(tiny_config(tmp_path, **changes))


def test_more_directions_can_be_asked_for(tmp_path):
    changes = {"method_kwargs__gh__num_directions": 20, "method_kwargs__gh__approximate_etf": True}
    model, data = build(tiny_config(tmp_path, **changes))
    fit(model, data, max_epochs=2)
    assert model.gh_etf.shape == (20, 8)


def test_one_view_is_refused(tmp_path):
    cfg = tiny_config(tmp_path)
    OmegaConf.update(cfg, "augmentations.0.num_crops", 1)
    with pytest.raises(UserError, match="gh_simclr needs 2 large views"):
        build(cfg)


def test_dummy_indexes_of_the_hosts_dali_loader_are_refused(tmp_path):
    """Under solo-learn's own main; our stages turn the format into an engine with true indexes."""
    from ltplugins.host import METHODS

    cfg = resolve(tiny_config(tmp_path)).host
    OmegaConf.update(cfg, "data.format", "dali")
    with pytest.raises(UserError, match="encode_indexes_into_labels=true"):
        METHODS["gh_simclr"](cfg)
    OmegaConf.update(cfg, "dali.encode_indexes_into_labels", True, force_add=True)
    cfg.data.update(num_classes=3, num_samples=42)
    assert METHODS["gh_simclr"](cfg).gh_memory.shape == (42, 5)


@pytest.mark.parametrize(
    ("value", "epochs"), [("50%", 10.0), ("1%", 0.2), (7, 7.0), (0, 0.0), ("100%", 20.0)]
)
def test_durations(value, epochs):
    assert to_epochs(check(value, Duration, "x"), 20) == pytest.approx(epochs)


@pytest.mark.parametrize("value", [-1, "-1%", "150%", "x%", "nan%", "10", True])
def test_wrong_durations(value):
    with pytest.raises(UserError, match=r"^x: expected .* such as '50%'"):
        check(value, Duration, "x")
