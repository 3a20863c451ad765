# SPDX-License-Identifier: MIT
"""Break a run and compare two: the shared part of every resume test."""

import functools
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from ltplugins.stages.csv_logger import read_metrics
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


def interrupted(cfg, epoch, batch, monkeypatch):
    """Run until a given batch, then fail as a killed process would leave things."""
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
            pretrain(cfg)
