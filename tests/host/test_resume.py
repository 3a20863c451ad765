# SPDX-License-Identifier: MIT
"""A run that is stopped and resumed equals the run that was not, EMA factor and rates included."""

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from ltplugins.host.builtin.momentum import MomentumUpdater
from tests.kit.hosts import HOSTS, host_methods, loader, make_cfg, tiny_cfg
from tests.kit.runs import quiet_trainer

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class SaveAfterFirstEpoch(pl.Callback):
    def __init__(self, path: Path) -> None:
        self.path, self.taus, self.rates = path, [], []

    def on_train_batch_end(self, trainer: Any, model: Any, *args: Any) -> None:
        self.taus.append(getattr(getattr(model, "momentum_updater", None), "cur_tau", None))
        self.rates.append([g["lr"] for g in trainer.optimizers[0].param_groups])

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
        if trainer.current_epoch == 0 and not self.path.exists():
            trainer.save_checkpoint(self.path)


def run(host: str, method: str, path: Path, resume: bool) -> tuple[Any, SaveAfterFirstEpoch]:
    changes = {"scheduler__warmup_epochs": 1, "momentum__base_tau": 0.5, "max_epochs": 2}
    cfg = make_cfg(method, **changes) if host == "solo" else tiny_cfg(method, **changes)
    torch.manual_seed(1 if resume else 0)
    model = host_methods(host)[method](cfg)
    watch = SaveAfterFirstEpoch(path)
    trainer = quiet_trainer(max_epochs=2, callbacks=[watch])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader(), ckpt_path=str(path) if resume else None)
    return model, watch


@pytest.mark.parametrize("method", ["byol", "mocov2plus", "simsiam"])
@pytest.mark.parametrize("host", HOSTS)
def test_resumed_run_equals_unbroken(host: str, method: str, tmp_path: Path) -> None:
    if host == "solo":
        from ltplugins.host.solo import make_resumable

        make_resumable()
        make_resumable()  # twice is the same as once
    path = tmp_path / "last.ckpt"
    whole, seen = run(host, method, path, resume=False)
    again, seen_again = run(host, method, path, resume=True)
    assert len(seen.rates) == 4
    assert seen.rates[2:] == seen_again.rates
    assert seen.taus[2:] == seen_again.taus
    for (name, p), q in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


class SaveWithinEpoch(pl.Callback):
    """Saves as ModelCheckpoint(every_n_train_steps=1) does: before the model's own hook."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Any, model: Any, out: Any, batch: Any, i: int) -> None:
        if i == 0 and not self.path.exists():
            trainer.save_checkpoint(self.path)

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, i: int) -> None:
        if i == 1 and not hasattr(self, "state"):
            self.state = {name: p.clone() for name, p in model.state_dict().items()}
            self.tau = model.momentum_updater.cur_tau


@pytest.mark.parametrize("method", ["byol", "mocov2plus"])
@pytest.mark.parametrize("host", HOSTS)
def test_checkpoint_within_an_epoch_holds_its_last_update(
    host: str, method: str, tmp_path: Path
) -> None:
    """The twins' update of the step that was saved is in the file, and is made once."""
    if host == "solo":
        from ltplugins.host.solo import make_resumable

        make_resumable()
    changes = {"scheduler__warmup_epochs": 0, "momentum__base_tau": 0.5, "max_epochs": 1}
    cfg = make_cfg(method, **changes) if host == "solo" else tiny_cfg(method, **changes)
    states = []
    for saves in (True, False):
        torch.manual_seed(0)
        model = host_methods(host)[method](cfg)
        watch = SaveWithinEpoch(tmp_path / "step.ckpt" if saves else tmp_path)
        trainer = quiet_trainer(max_epochs=1, callbacks=[watch])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(model, loader())
        states.append(watch)
    saved = torch.load(tmp_path / "step.ckpt", weights_only=False)
    assert saved["momentum_tau"] == states[1].tau != 0.5
    for name, p in states[1].state.items():
        assert torch.equal(states[0].state[name], p), name
        assert torch.equal(saved["state_dict"][name], p), name


def test_tau_follows_a_cosine_to_its_end() -> None:
    updater = MomentumUpdater(0.9, 1.0)
    values = []
    for step in (0, 5, 10):
        updater.update_tau(step, 10)
        values.append(updater.cur_tau)
    assert values == pytest.approx([0.9, 0.95, 1.0])
    updater.update_tau(2, 8)  # by hand: 1 - 0.1 * (1 + cos(pi / 4)) / 2
    assert updater.cur_tau == pytest.approx(1 - 0.1 * (1 + math.sqrt(0.5)) / 2)


def test_update_moves_the_twin_by_one_minus_tau() -> None:
    online, twin = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    online.weight.data.fill_(2.0)
    twin.weight.data.fill_(1.0)
    MomentumUpdater(0.75, 1.0).update(online, twin)
    assert twin.weight.item() == pytest.approx(1.25)
    assert online.weight.item() == 2.0
