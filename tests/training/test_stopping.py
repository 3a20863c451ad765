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
from ltplugins.training.signals import requeue
from ltplugins.training.stopping import WallClock
from tests.kit.runs import assert_same_run, interrupted, load, stopped
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_an_epoch_and_the_same_command_goes_on(
    number, tmp_path, monkeypatch
):
    before = signal.getsignal(number)
    whole = pretrain(tiny_config(tmp_path, "simclr", output_dir=str(tmp_path / "whole")))
    cfg = tiny_config(tmp_path, "simclr")
    stopped(cfg, 1, 2, monkeypatch, number=number)
    assert signal.getsignal(number) == before
    assert RunFolder(tmp_path / "run").read().progress == Progress(1, 3, 8, 15)
    assert open_run(tmp_path / "run").progress == Progress(1, 3, 5, 15)  # the whole epochs
    stopped(cfg, 1, 3, monkeypatch, number=number)  # again, in the same epoch
    stopped(cfg, 1, 4, monkeypatch, number=number)  # in its last batch: it ends with the epoch
    assert not (tmp_path / "run/checkpoints/stopped.ckpt").exists()
    assert RunFolder(tmp_path / "run").read().progress == Progress(2, 3, 10, 15)
    assert_same_run(whole, pretrain(cfg))


def test_a_stop_is_older_than_the_epoch_that_came_after(tmp_path, monkeypatch):
    """Killed before the place within the epoch was removed, a run goes on from the epoch."""
    cfg = tiny_config(tmp_path, "simclr")
    stopped(cfg, 1, 2, monkeypatch)
    place = tmp_path / "run/checkpoints/stopped.ckpt"
    kept = place.read_bytes()
    interrupted(cfg, 2, 0, monkeypatch)
    place.write_bytes(kept)
    started = []
    monkeypatch.setattr("ltplugins.training.own.log.info", lambda *a: started.append(a[1].name))
    pretrain(cfg)
    assert started == ["last.ckpt"]


def test_a_damaged_place_is_left_for_the_epochs_start(tmp_path, monkeypatch):
    whole = pretrain(tiny_config(tmp_path, "simclr", output_dir=str(tmp_path / "whole")))
    cfg = tiny_config(tmp_path, "simclr")
    stopped(cfg, 1, 2, monkeypatch)
    (tmp_path / "run/checkpoints/stopped.ckpt").write_bytes(b"cut")
    assert_same_run(whole, pretrain(cfg))


def test_with_accumulation_it_ends_after_a_whole_step(tmp_path, monkeypatch):
    changes = {"accumulate_grad_batches": 2, "knn_eval": {"enabled": True, "k": 2}}
    where = {"output_dir": str(tmp_path / "whole")}
    whole = pretrain(tiny_config(tmp_path, "byol", **changes, **where))
    cfg = tiny_config(tmp_path, "byol", **changes)
    stopped(cfg, 1, 2, monkeypatch)
    assert load(tmp_path / "run/checkpoints/stopped.ckpt")["ltplugins"]["within"]["batches"] == 4
    assert_same_run(whole, pretrain(cfg))


def test_a_time_that_is_none_is_refused_before_a_folder(tmp_path):
    for value in ("12 hours", {"hour": 2}, "1:2"):
        with pytest.raises(UserError, match="max_time: expected days:hours:minutes:seconds"):
            pretrain(tiny_config(tmp_path, "simclr", max_time=value))
    assert not (tmp_path / "run").exists()


SLURM = {"SLURM_JOB_ID": "4", "SLURM_JOB_NAME": "pretrain", "SLURM_NTASKS": "1"}
SLURM |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
SLURM |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NODELIST": "localhost"}


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """SLURM's command, which writes down what it is given; and SLURM's variables."""
    command = tmp_path / "bin/scontrol"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    return lambda: (tmp_path / "asked").read_text().splitlines()


def test_slurms_signal_saves_and_puts_the_job_back(tmp_path, scontrol, monkeypatch):
    stopped(tiny_config(tmp_path, "simclr"), 1, 2, monkeypatch, number=signal.SIGUSR1)
    assert load(tmp_path / "run/checkpoints/stopped.ckpt")["global_step"] == 8
    assert scontrol() == ["requeue 4"]
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    requeue()
    assert scontrol()[1:] == ["requeue 7_3"]


def test_a_job_that_cannot_be_put_back_is_told(scontrol, monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "4; rm")
    requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "4")
    monkeypatch.setenv("PATH", "")
    requeue()
    assert "SLURM_JOB_ID is '4; rm'" in caplog.messages[0]
    assert "job 4 is not put back into the queue" in caplog.messages[1]
    with pytest.raises(FileNotFoundError):
        scontrol()
