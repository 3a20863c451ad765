# SPDX-License-Identifier: MIT
"""A training that diverges ends at that step, says where, and leaves its checkpoint as it was."""

import lightning.pytorch as pl
import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.stages.debug import debug
from ltplugins.stages.pretrain import pretrain
from ltplugins.training.faults.divergence import FILE, Divergence
from ltplugins.training.shots import ShotGroups
from tests.kit.cases import run_names
from tests.kit.runs import assert_same_run, load
from tests.kit.tiny import calm_config, tiny_config

NAN = float("nan")


def spoiled(place: tuple[int, int], what: str) -> type[pl.Callback]:
    """A callback that makes something NaN at an (epoch, batch)."""

    class Spoil(ShotGroups):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            is_there = (trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_idx) == place
            if is_there and what == "gradient":
                for parameter in module.parameters():
                    if parameter.grad is not None:
                        parameter.grad.fill_(NAN)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == place and what == "weights":
                next(module.backbone.parameters()).data[0] = NAN
            if (trainer.current_epoch, batch_idx) == place and what == "optimiser":
                next(iter(trainer.optimizers[0].state.values()))["momentum_buffer"][0] = NAN
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    return Spoil


@pytest.mark.parametrize(
    ("place", "what", "text"),
    [
        ((1, 4), "gradient", r"epoch 2 of 3, after step 10: the loss is finite, its gradient is"),
        ((1, 4), "weights", r"epoch 2 of 3, after step 10: \S+ is not finite"),
        ((1, 4), "optimiser", r"after step 10: optimizer 0, parameter 0, momentum_buffer is not"),
        ((1, 1), "weights", r"epoch 2 of 3, after step 8: loss, train_class_loss.* are not finite"),
    ],
)
def test_the_checkpoint_before_is_kept(place, what, text, tmp_path, monkeypatch) -> None:
    cfg = tiny_config(tmp_path, "simclr")
    with monkeypatch.context() as patch:
        patch.setattr("ltplugins.stages.pretrain.ShotGroups", spoiled(place, what))
        with pytest.raises(UserError, match=text) as error:
            pretrain(cfg)
    assert "The checkpoint of epoch 1 is kept" in str(error.value)
    kept = load(tmp_path / "run/checkpoints/last.ckpt")
    assert kept["epoch"] == 0
    assert all(torch.isfinite(v).all() for v in kept["state_dict"].values())
    if what == "gradient":  # without what made it diverge, the same command goes on
        whole = pretrain(tiny_config(tmp_path, "simclr", output_dir=str(tmp_path / "whole")))
        assert_same_run(whole, pretrain(cfg))


def test_the_step_is_repeated(tmp_path, capsys) -> None:
    """From the start of a run, and from its checkpoint; nothing is written."""
    cfg = tiny_config(tmp_path, "simclr", scheduler__warmup_epochs=0)
    cfg.optimizer.update(lr=1e30, classifier_lr=1e30)
    with pytest.raises(UserError, match="diverged"):
        pretrain(cfg)
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    replay = debug(tmp_path / "run" / FILE)
    said = capsys.readouterr().out
    assert replay.lines[-1] == "the step diverges again"
    assert replay.found.place in said
    assert "first output that is not finite: " in said
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}


def test_a_fault_that_is_gone_is_told(tmp_path, monkeypatch) -> None:
    cfg = tiny_config(tmp_path, "simclr")
    with monkeypatch.context() as patch:
        patch.setattr("ltplugins.stages.pretrain.ShotGroups", spoiled((1, 2), "gradient"))
        with pytest.raises(UserError, match="diverged"):
            pretrain(cfg)
    replay = debug(tmp_path / "run")
    assert (replay.found.epoch, replay.found.batch, replay.found.step) == (1, 2, 8)
    assert replay.found.checkpoint == "last.ckpt"
    assert replay.lines[-1] == "the step does not diverge here"


@pytest.mark.parametrize("name", run_names())
def test_every_method_says_step_term_and_images(name, tmp_path) -> None:
    """At a rate at which none converges; whatever the method calls its losses."""
    cfg = calm_config(tmp_path, name, max_epochs=2, scheduler__warmup_epochs=0)
    cfg.optimizer.update(lr=1e30, classifier_lr=1e30)
    with pytest.raises(UserError, match=r"diverged in epoch 1 of 2, after step \d+: ") as error:
        pretrain(cfg)
    found = Divergence.read(tmp_path / "run" / FILE)
    assert found.terms[0] in ("loss", "gradient")
    assert len(found.indexes[0]) >= 4
    assert str(found.indexes[0][0]) in str(error.value)
    assert "There is no checkpoint yet" in str(error.value)
    assert "ltplugins debug" in str(error.value)
    assert not list((tmp_path / "run/checkpoints").glob("*.ckpt"))
