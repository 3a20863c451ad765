# SPDX-License-Identifier: MIT
"""A training that ends before its last epoch: what it saves, and what the same command does."""

import os
import signal

import pytest

from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.facts import Progress
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.pretrain import pretrain
from ltplugins.training.shots import ShotGroups
from ltplugins.training.stopping import WallClock
from tests.kit.runs import assert_same_run, load
from tests.kit.tiny import tiny_config


@pytest.fixture
def short_of_time(monkeypatch):
    """Time that is up after so many steps of a process, whatever the machine."""

    def after(steps):
        taken = []

        def check(self, trainer):
            taken.append(1)
            trainer.should_stop = self.is_up

        monkeypatch.setattr(WallClock, "is_up", property(lambda self: len(taken) > steps))
        monkeypatch.setattr(WallClock, "_check_time_remaining", check)

    return after


def test_where_time_is_up_the_same_command_goes_on(tmp_path, short_of_time):
    whole = pretrain(tiny_config(tmp_path, "simclr", output_dir=str(tmp_path / "whole")))
    cfg = tiny_config(tmp_path, "simclr", max_time="00:00:10:00")
    for epochs in (1, 2):  # each time one whole epoch of five steps, and a part of the next
        short_of_time(8)
        facts = RunFolder(pretrain(cfg)).read()
        assert not facts.is_over
        assert facts.progress == Progress(epochs, 3, 5 * epochs, 15)
        assert load(tmp_path / "run/checkpoints/last.ckpt")["epoch"] == epochs - 1
    short_of_time(100)
    cfg.max_time = "00:00:20:00"  # how long it may take is not what it is
    assert_same_run(whole, pretrain(cfg))
    assert RunFolder(tmp_path / "run").read().finished


def test_a_limit_of_steps_is_not_the_end_that_was_planned(tmp_path, caplog):
    cfg = tiny_config(tmp_path, "simclr", max_steps=3)
    path = pretrain(cfg)
    facts = RunFolder(path).read()
    assert (facts.finished, facts.stopped) == (None, "max_steps=3")
    assert facts.progress == open_run(path).progress == Progress(0, 3, 3, 15)
    before = (path / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert pretrain(cfg) == path
    assert (path / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"stopped within an epoch \(step 3 of 15\)"):
        pretrain({**cfg, "max_steps": -1, "resume_from_checkpoint": str(path)})


def test_a_trial_is_marked_and_gives_its_folder_away(tmp_path):
    path = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1, fast_dev_run=True))
    assert open_run(path).progress == Progress(0, 1, 1, 5)
    assert RunFolder(path).read().stopped == "fast_dev_run"
    assert pretrain(tiny_config(tmp_path, "simclr", max_epochs=1)) == path
    facts = RunFolder(path).read()
    assert facts.finished
    assert facts.progress == Progress(1, 1, 5, 5)
    assert facts.progress.is_complete


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_it_with_its_code_and_the_same_command_goes_on(
    name, code, tmp_path, monkeypatch
):
    class Send(ShotGroups):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (1, 2):
                os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(getattr(signal, name))
    whole = pretrain(tiny_config(tmp_path, "simclr", output_dir=str(tmp_path / "whole")))
    cfg = tiny_config(tmp_path, "simclr")
    with monkeypatch.context() as patch:
        patch.setattr("ltplugins.stages.pretrain.ShotGroups", Send)
        with pytest.raises(SystemExit) as end:
            pretrain(cfg)
    signal.signal(getattr(signal, name), before)
    assert end.value.code == code
    assert RunFolder(tmp_path / "run").read().progress == Progress(1, 3, 5, 15)
    assert_same_run(whole, pretrain(cfg))


def test_a_time_that_is_none_is_refused_before_a_folder(tmp_path):
    for value in ("12 hours", {"hour": 2}, "1:2"):
        with pytest.raises(UserError, match="max_time: expected days:hours:minutes:seconds"):
            pretrain(tiny_config(tmp_path, "simclr", max_time=value))
    assert not (tmp_path / "run").exists()
