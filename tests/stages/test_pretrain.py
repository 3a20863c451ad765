# SPDX-License-Identifier: MIT
"""The pretraining stage: its folder, resume after kill -9, and what it refuses."""

import json
import logging
import os
import signal
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.host import HOST
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.folder import RunFolder
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from tests.kit.launch import CLI, finish, start, start_held
from tests.kit.runs import assert_same_run, interrupted, load
from tests.kit.tiny import tiny_config, write_arrays


def test_workers_engine_resumes_too(tmp_path, monkeypatch):
    changes = {"data__engine": "workers", "data__num_workers": 1, "max_epochs": 3}
    whole = pretrain(tiny_config(tmp_path, **changes, output_dir=str(tmp_path / "whole")))
    cfg = tiny_config(tmp_path, **changes, output_dir=str(tmp_path / "broken"))
    interrupted(cfg, 1, 3, monkeypatch)
    assert_same_run(whole, pretrain(cfg))


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(tmp_path):
    changes = {"max_epochs": 4, "log_every_n_steps": 1}
    whole = pretrain(tiny_config(tmp_path, **changes, output_dir=str(tmp_path / "whole")))
    OmegaConf.save(tiny_config(tmp_path, **changes), tmp_path / "tiny.yaml")
    process = start_held(tmp_path, "killed", "0 2 3", LTPLUGINS_HOST=HOST.name)
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert load(tmp_path / "killed/checkpoints/last.ckpt")["epoch"] == 1
    code, errors = finish(start(CLI, tmp_path, "killed", LTPLUGINS_HOST=HOST.name))
    assert code == 0, errors[-3000:]
    assert_same_run(whole, tmp_path / "killed")


def test_a_finished_run_is_left_alone(tmp_path):
    cfg = tiny_config(tmp_path, "simclr", max_epochs=1)
    path = pretrain(cfg)
    before = (path / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert pretrain(cfg) == path
    assert (path / "checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_what_a_run_folder_holds(tmp_path):
    path = pretrain(tiny_config(tmp_path, max_epochs=2, checkpoint={"keep_prev": True}))
    names = {p.name for p in path.iterdir()}
    assert names == {"config.yaml", "run.json", "metrics.csv", "checkpoints", ".lock"}
    assert {p.name for p in (path / "checkpoints").iterdir()} == {
        "last.ckpt",
        "epoch=0.ckpt",
        "epoch=1.ckpt",
        "args.json",
    }
    facts = json.loads((path / "run.json").read_text())
    assert facts["split"]["class_counts"] == [24, 12, 6]
    assert len(facts["split"]["hash"]) >= 16
    assert {"torch", "lightning", "timm"} <= set(facts["packages"])
    assert facts["host"]
    assert facts["command"]
    assert facts["finished"]
    curves = read_metrics(path / "metrics.csv")
    assert {"train_nce_loss_epoch", "train_gh_loss_epoch", "val_acc1"} <= set(curves)
    meta = load(path / "checkpoints/last.ckpt")["ltplugins"]
    assert meta["split"]["hash"] == facts["split"]["hash"]
    assert meta["config"]["method"] == "gh_simclr"


def test_the_last_epoch_is_saved_whatever_the_frequency(tmp_path):
    path = pretrain(tiny_config(tmp_path, "simclr", checkpoint={"frequency": 2}))
    assert load(path / "checkpoints/last.ckpt")["epoch"] == 2


def test_a_run_without_checkpoints(tmp_path):
    path = pretrain(tiny_config(tmp_path, "simclr", max_epochs=2, checkpoint={"enabled": False}))
    assert RunFolder(path).read().finished
    assert list((path / "checkpoints").iterdir()) == []
    assert "train_nce_loss_epoch" in read_metrics(path / "metrics.csv")
    with pytest.raises(UserError, match=r"holds no weights: .* checkpoint.enabled=false, or"):
        open_run(path)


def test_the_augmentations_are_shown_on_request(tmp_path, caplog, monkeypatch):
    # A command line that ran in this process has given them a handler of their own.
    monkeypatch.setattr(logging.getLogger("ltplugins"), "propagate", True)
    with caplog.at_level(logging.INFO, "ltplugins"):
        pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
        assert "AugmentationBlock" not in caplog.text
        cfg = tiny_config(tmp_path, "simclr", max_epochs=1, debug_augmentations=True)
        pretrain({**cfg, "output_dir": str(tmp_path / "shown")})
    assert "augmentations[0]: AugmentationBlock(crop_size=16, num_crops=2, rrc=RRC" in caplog.text


def test_another_configs_run_is_not_overwritten(tmp_path):
    path = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
    before = (path / "config.yaml").read_text()
    with pytest.raises(UserError, match=r"optimizer.lr: 0.05 there, 0.7 here.*Set output_dir"):
        pretrain(tiny_config(tmp_path, "simclr", max_epochs=1, optimizer__lr=0.7))
    assert (path / "config.yaml").read_text() == before


def test_other_data_of_the_same_shape_is_noticed(tmp_path):
    pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
    write_arrays(tmp_path / "train.npz", (6, 12, 24))
    with pytest.raises(UserError, match=r"data_hash: .* there, .* here"):
        pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"not empty and holds no run \(found thesis.tex\)"):
        pretrain(tiny_config(tmp_path, "simclr"))
    assert (tmp_path / "run/thesis.tex").read_text() == "years of work"


def test_a_folder_left_by_a_kill_before_the_first_step_is_taken_up(tmp_path):
    path = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
    for name in ("run.json", "metrics.csv", "checkpoints/last.ckpt"):
        (path / name).unlink()
    assert pretrain(tiny_config(tmp_path, "simclr", max_epochs=1)) == path
    (path / "run.json").unlink()  # of a run that its checkpoint knows
    with pytest.raises(UserError, match="another config's run"):
        pretrain(tiny_config(tmp_path, "simclr", max_epochs=2))
    assert RunFolder(pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))).read().finished


def test_two_processes_do_not_share_a_folder(tmp_path):
    path = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
    code = "import fcntl, sys; f=open(sys.argv[1],'w'); fcntl.lockf(f, fcntl.LOCK_EX)"
    code += "; print('locked', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path / ".lock")]
    pipe = subprocess.PIPE
    holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process is writing"):
            pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
    finally:
        holder.kill()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method": "gh_simclir"}, r"unknown method 'gh_simclir'. Did you mean 'gh_simclr'\?"),
        ({"backbone__name": "resnet19"}, r"unknown backbone 'resnet19'"),
        ({"method_kwargs__temprature": 1}, r"temprature'. Did you mean 'temperature'"),
        ({"optimizer__batch_size": 64}, "42 .*64"),
        ({"data__sampler": "classaware"}, "class_aware"),
        ({"data__engine": "batch"}, "batched"),
        ({"devices": 0}, "devices: expected a whole number of 1 or more, or -1, got 0"),
        ({"strategy": "fsdp", "devices": 2}, "unknown strategy"),
        ({"augmentations__0": 3}, "augmentations"),
    ],
)
def test_bad_input_leaves_no_folder_behind(changes, text, tmp_path):
    if "augmentations__0" in changes:
        cfg = tiny_config(tmp_path)
        OmegaConf.update(cfg, "augmentations.0.gaussian_blr", {"prob": 1}, force_add=True)
        text = r"gaussian_blr'. Did you mean 'gaussian_blur'"
    else:
        cfg = tiny_config(tmp_path)
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    with pytest.raises(UserError, match=text):
        pretrain(cfg)
    assert not (tmp_path / "run").exists()


def test_divergence_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    cfg = tiny_config(tmp_path, "vicreg", optimizer__lr=3.0, scheduler__warmup_epochs=2)
    with pytest.raises(UserError, match="training has diverged in epoch"):
        pretrain(cfg)
    last = RunFolder(tmp_path / "run").last_checkpoint
    assert last is None or all(
        torch.isfinite(v).all() for v in load(last)["state_dict"].values() if v.is_floating_point()
    )
