# SPDX-License-Identifier: MIT
"""Temperature schedules over every base that has one: what is set when, resume, what is refused."""

from functools import partial

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from tests.kit.linear import five_losses, linear_networks, noise
from tests.kit.runs import assert_resumes, build, fit, load, quiet_trainer, step
from tests.kit.tiny import tiny_config

BASES = ("simclr", "supcon", "mocov2plus")


def ts_config(folder, base="simclr", block=None, **changes):
    cfg = tiny_config(folder, base, **changes)
    cfg.method, cfg.method_kwargs.ts = f"ts_{base}", {"t_max": 2, **(block or {})}
    return cfg


@pytest.mark.parametrize("base", BASES)
def test_loss_is_the_bases_at_the_schedules_temperature(base, tmp_path, monkeypatch):
    """In the epochs 1, 2, 3, 4 of the official count, T = 2: .55, .1, .55, 1."""
    model, _ = build(ts_config(tmp_path, base))
    seen = []
    for epoch, temperature in enumerate((0.55, 0.1, 0.55, 1.0)):
        monkeypatch.setattr(type(model), "current_epoch", epoch)
        plain, _ = build(tiny_config(tmp_path, base, method_kwargs__temperature=temperature))
        plain.load_state_dict(model.state_dict())
        expected = step(plain, noise(8))
        buffers = {k: v.clone() for k, v in model.state_dict().items()}
        loss = step(model, noise(8))
        model.load_state_dict(buffers)  # a queue has moved on
        torch.testing.assert_close(loss, expected)
        seen.append(loss.item())
    assert len(set(seen)) == 3


@pytest.mark.parametrize("base", BASES)
def test_a_constant_schedule_reproduces_the_base_bit_for_bit(base, tmp_path):
    plain, data = build(tiny_config(tmp_path, base, method_kwargs__temperature=0.3))
    fit(plain, data, max_epochs=2)
    constant = {"temperature_min": 0.3, "temperature_max": 0.3}
    model, data = build(ts_config(tmp_path, base, constant))
    fit(model, data, max_epochs=2)
    assert plain.state_dict().keys() == model.state_dict().keys()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    other, data = build(ts_config(tmp_path, base))
    fit(other, data, max_epochs=2)
    key = "projector.0.weight"
    assert not torch.equal(other.state_dict()[key], model.state_dict()[key])


@pytest.mark.parametrize("engine", ["batched", "workers"])
def test_the_logged_temperature_follows_the_epochs(engine, tmp_path):
    cfg = ts_config(tmp_path, data__engine=engine, max_epochs=4)
    curve = read_metrics(pretrain(cfg) / "metrics.csv")["train_ts_temperature_epoch"][1]
    assert curve == pytest.approx([0.55, 0.1, 0.55, 1.0])


def test_a_share_of_the_run_is_at_least_one_epoch(tmp_path):
    for max_epochs, share, expected in ((2000, "10%", 200.0), (6, "10%", 1.0), (6, 0.5, 1.0)):
        model, _ = build(ts_config(tmp_path, block={"t_max": share}, max_epochs=max_epochs))
        assert model.ts_t_max == expected
    block = {"t_max": 0.5, "interval": "step"}
    assert build(ts_config(tmp_path, block=block))[0].ts_t_max == 0.5


def test_per_step_the_temperature_falls_within_an_epoch(tmp_path):
    """T = 1 epoch of 5 steps: from the highest at step 0 to nearly the lowest at step 4."""
    cfg = ts_config(tmp_path, block={"t_max": 1, "interval": "step"})
    model, data = build(cfg)
    seen = []
    whole = model.training_step

    def watched(batch, batch_idx):
        loss = whole(batch, batch_idx)
        seen.append(model.temperature)
        return loss

    model.training_step = watched
    fit(model, data, max_epochs=1)
    expected = [0.1 + 0.9 * torch.tensor(torch.pi * i / 10).cos().item() ** 2 for i in range(5)]
    assert seen == pytest.approx(expected, abs=1e-6)


def test_under_gh_the_base_keeps_its_schedule(tmp_path):
    cfg = tiny_config(tmp_path, "gh_simclr")
    cfg.method, cfg.method_kwargs.ts = "gh_ts_simclr", {"t_max": 2}
    model, data = build(cfg)
    trainer = fit(model, data)
    assert float(trainer.callback_metrics["train_ts_temperature_epoch"]) == pytest.approx(0.55)
    assert torch.isfinite(trainer.callback_metrics["train_gh_loss_epoch"])


def test_frozen_loss(tmp_path, monkeypatch):
    """A step in each of five epochs; another number is another method: say why in the changelog."""
    model = linear_networks(build(ts_config(tmp_path))[0])
    losses = five_losses(model, lambda e: monkeypatch.setattr(type(model), "current_epoch", e))
    assert losses == pytest.approx(
        [4.015096853, 6.307459068, 3.684976119, 3.777577711, 4.697899295], abs=1e-6
    )


def test_a_run_whose_temperature_falls_by_steps_resumes(tmp_path, monkeypatch):
    config = partial(ts_config, tmp_path, block={"interval": "step"}, max_epochs=4)
    assert_resumes(partial(config, log_every_n_steps=1), tmp_path, monkeypatch)


def test_a_checkpoint_brings_no_temperature_along(tmp_path):
    """Its epoch says it: a file of epoch 4 loaded into a fresh model goes on with epoch 5's."""
    run = pretrain(ts_config(tmp_path, max_epochs=4))
    state = load(run / "checkpoints/last.ckpt")
    assert not any("temperature" in key for key in state["state_dict"])
    model, data = build(ts_config(tmp_path, max_epochs=5))
    trainer = quiet_trainer(max_epochs=5)
    trainer.fit(model, datamodule=data, ckpt_path=run / "checkpoints/last.ckpt", weights_only=False)
    assert model.temperature == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"temperature_min": 0.0}, "ts.temperature_min: expected a number above 0, got 0.0"),
        (
            {"temperature_max": 0.05},
            r"temperature_min: expected .* at most temperature_max \(0.05\), got 0.1",
        ),
        (
            {"t_max": 0},
            "ts.t_max: expected a number of epochs above 0, or a share of the run .* got 0",
        ),
        (
            {"t_max": "ten"},
            r"ts.t_max: expected a number of epochs above 0, or a share .* got 'ten'",
        ),
        ({"interval": "batch"}, "ts.interval: expected one of epoch, step; got 'batch'"),
        ({"tmax": 3}, r"ts.tmax'. Did you mean 't_max'"),
    ],
)
def test_bad_options_are_named(block, text, tmp_path):
    with pytest.raises(UserError, match=text):
        build(ts_config(tmp_path, block=block))
