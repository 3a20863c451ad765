# SPDX-License-Identifier: MIT
"""Break a run and compare two: the shared part of every resume test."""

import functools
import os
import signal
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from ltplugins.config.data import training_set
from ltplugins.config.resolve import resolve
from ltplugins.data.datamodule import build_datamodule
from ltplugins.host import METHODS, prepare
from ltplugins.runs.folder import RunFolder
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, buffers, optimiser, schedule and logged metrics are equal, bit for bit."""
    one, two = load(a / "checkpoints/last.ckpt"), load(b / "checkpoints/last.ckpt")
    assert one["global_step"] == two["global_step"]
    assert one["state_dict"].keys() == two["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][key]), key
    assert one.get("momentum_tau") == two.get("momentum_tau")
    assert one["lr_schedulers"] == two["lr_schedulers"]
    states = [c["optimizer_states"][0]["state"] for c in (one, two)]
    for key, value in states[0].items():
        assert torch.equal(value["momentum_buffer"], states[1][key]["momentum_buffer"])
    assert read_metrics(a / "metrics.csv") == read_metrics(b / "metrics.csv")


class Interrupt(Exception):
    pass


def interrupted(cfg, epoch, batch, monkeypatch, stage=pretrain):
    """Run the stage until a given batch, then fail as a killed process would leave things."""
    real = pl.Trainer.__init__

    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer, module, data, batch_idx):
            if (trainer.current_epoch, batch_idx) == (epoch, batch):
                raise Interrupt

    @functools.wraps(real)  # the config check reads the Trainer's signature
    def with_stop(self, **kwargs):
        real(self, **{**kwargs, "callbacks": [*kwargs["callbacks"], Stop()]})

    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "__init__", with_stop)
        with pytest.raises(Interrupt):
            stage(cfg)


def stopped(cfg, epoch, batch, monkeypatch, stage=pretrain, number=signal.SIGTERM):
    """Run the stage and send it a signal in a given batch; it ends after that batch."""
    real = pl.Trainer.__init__

    class Send(pl.Callback):
        def on_train_batch_start(self, trainer, module, data, batch_idx):
            if (trainer.current_epoch, batch_idx) == (epoch, batch):
                os.kill(os.getpid(), number)

    @functools.wraps(real)
    def with_signal(self, **kwargs):
        real(self, **{**kwargs, "callbacks": [*kwargs["callbacks"], Send()]})

    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "__init__", with_signal)
        with pytest.raises(SystemExit) as end:
            stage(cfg)
    assert end.value.code == 128 + number


def assert_resumes(
    config, folder: Path, monkeypatch, breaks=((1, 0), (2, 3)), stops=((2, 1),)
) -> Path:
    """A run that is broken, or stopped, at each (epoch, batch) ends as the unbroken one.

    Args:
        config: gives the run's config for an ``output_dir``.
        breaks: where it is killed; it goes on from the epoch's start.
        stops: where it gets a signal; it goes on from there.

    Returns:
        The folder of the unbroken run.
    """
    whole = pretrain(config(output_dir=str(folder / "whole")))
    for epoch, batch in breaks:
        interrupted(config(output_dir=str(folder / "broken")), epoch, batch, monkeypatch)
        assert RunFolder(folder / "broken").read().finished is None
    for epoch, batch in stops:
        stopped(config(output_dir=str(folder / "broken")), epoch, batch, monkeypatch)
        within = load(folder / "broken/checkpoints/stopped.ckpt")["ltplugins"]["within"]
        assert (within["epoch"], within["batches"]) == (epoch, batch + 1)
    assert_same_run(whole, pretrain(config(output_dir=str(folder / "broken"))))
    return whole


def build(cfg):
    """The config's method and data, as the pretraining stage builds them: (model, data)."""
    prepare()  # as every main does first: solo-learn is mended, whichever test ran before
    pl.seed_everything(int(cfg.get("seed", 0)), verbose=False)
    config = resolve(cfg)
    training = training_set(config)
    data = build_datamodule(training, config.seed)
    config = config.with_counts(training.num_samples, training.num_classes)
    return METHODS[config.method](config.host), data


def quiet_trainer(**kwargs):
    """A CPU Trainer that writes and prints nothing; one process, no validation, unless told."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    }
    return pl.Trainer(**{**quiet, **kwargs})


def fit(model, data, ckpt_path=None, **kwargs):
    """Train quietly, 3 epochs unless told otherwise; return the trainer."""
    trainer = quiet_trainer(**{"max_epochs": None if "max_steps" in kwargs else 3, **kwargs})
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return trainer


def step(model, batch):
    """One training step outside a Trainer, without its warnings about logging."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.training_step(batch, 0)
