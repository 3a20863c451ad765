# SPDX-License-Identifier: MIT
"""Sweeps that train: every member, resume, one that fails among others, table, launchers."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.runs.folder import RunFolder
from ltplugins.stages import multirun as stage
from ltplugins.stages.pretrain import pretrain
from tests.kit import forked
from tests.kit.paths import ROOT
from tests.kit.runs import assert_same_run, interrupted
from tests.kit.sweeps import train_in_process
from tests.kit.tiny import tiny_config

EVAL = {"knn": {"k": 3, "bank": "probe"}, "linear": None, "groups": ["tercile"], "seeds": [0]}


def has_plugin(name):
    return bool(
        importlib.util.find_spec("hydra_plugins")
        and importlib.util.find_spec(f"hydra_plugins.{name}")
    )


@pytest.fixture
def files(tmp_path):
    """A folder with tiny ``simclr.yaml`` and ``gh_simclr.yaml``, which needs another length."""
    for method, epochs in (("simclr", 2), ("gh_simclr", 3)):
        cfg = tiny_config(tmp_path, method, max_epochs=epochs)
        cfg.eval = EVAL
        OmegaConf.save(cfg, tmp_path / f"{method}.yaml")
    return tmp_path


def arguments(files, names="simclr,gh_simclr", *words):
    where = ["--multirun", "--config-path", str(files), "--config-name", names]
    return [*where, f"output_dir={files / 'sweep'}", *words]


@pytest.fixture
def in_process(monkeypatch):
    return train_in_process(monkeypatch)


def test_a_sweep_trains_compares_and_skips_what_is_done(files, in_process, capsys):
    command = arguments(files, "simclr,gh_simclr", "seed=0,1")
    stage.multirun(command, "pretrain")
    names = [f"{m},seed={s}" for m in ("simclr", "gh_simclr") for s in (0, 1)]
    assert in_process == names
    sweep = files / "sweep"
    assert sorted(p.parent.name for p in sweep.glob("*/run.json")) == sorted(names)
    assert [RunFolder(sweep / n).read().identity["max_epochs"] for n in names] == [2, 2, 3, 3]
    out = capsys.readouterr().out
    for text in ("simclr (n=2)", "gh_simclr (n=2)", "gh_simclr − simclr (n=2)", "knn_k3", "few"):
        assert text in out
    assert "| gh_simclr (n = 2) |" in (sweep / "report.md").read_text()
    assert (sweep / "report.html").exists()

    results = {n: (sweep / n / "results.json").stat().st_mtime_ns for n in names}
    stage.multirun(command, "pretrain")
    assert in_process == names  # not one was trained again, nor evaluated
    assert results == {n: (sweep / n / "results.json").stat().st_mtime_ns for n in names}
    # A protocol that has changed is another evaluation, of the same runs.
    stage.multirun([*command, "eval.knn.k=5"], "pretrain")
    assert in_process == names
    assert "knn_k5" in (sweep / "report.md").read_text()


def test_a_failing_member_does_not_lose_the_others(files, in_process, capsys):
    with pytest.raises(SystemExit) as end:
        stage.multirun(arguments(files, "simclr", "optimizer.batch_size=8,64,9"), "pretrain")
    assert end.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "failed: simclr,batch_size=64: fewer images than the batch" in said
    assert "1 of 3 members failed" in said
    table = (files / "sweep/report.md").read_text()
    assert "batch_size=8 |" in table
    assert "batch_size=9 |" in table
    assert "batch_size=64" not in table


def test_an_interrupted_member_goes_on_where_it_was(files, in_process, monkeypatch):
    whole = pretrain(tiny_config(files, "simclr", max_epochs=2, output_dir=str(files / "whole")))
    cfg = tiny_config(files, "simclr", max_epochs=2, eval=EVAL)
    cfg.output_dir = str(files / "sweep/simclr,seed=0")
    interrupted(cfg, 1, 1, monkeypatch)
    stage.multirun(arguments(files, "simclr", "seed=choice(0)"), "pretrain")
    assert_same_run(whole, files / "sweep/simclr,seed=0")


def test_another_configs_run_is_not_taken_for_this_one(files, in_process, capsys):
    stage.multirun(arguments(files, "simclr", "seed=choice(0)"), "pretrain")
    with pytest.raises(SystemExit):
        stage.multirun(arguments(files, "simclr", "seed=choice(0)", "max_epochs=3"), "pretrain")
    assert "max_epochs: 2 there, 3 here" in " ".join(capsys.readouterr().err.split())


def test_ctrl_c_ends_the_sweep_with_one_line(files, monkeypatch, capsys):
    def stopped(sweep, member):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_train", stopped)
    with pytest.raises(SystemExit) as end:
        stage.main(arguments(files, "simclr", "seed=0,1"), "pretrain")
    assert end.value.code == 130
    assert "the same command continues the sweep" in capsys.readouterr().err


def test_a_member_whose_process_is_killed_is_named(files, monkeypatch, capsys):
    """As by the kernel where memory runs out."""
    monkeypatch.setattr(stage.Member, "arguments", lambda *_: ["--version"])
    code = "import os, signal; print('so far so good'); os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(stage, "CHILD", [sys.executable, "-c", code])
    with pytest.raises(SystemExit):
        stage.multirun(arguments(files, "simclr", "seed=choice(0)"), "pretrain")
    assert "simclr,seed=0: its process was ended by SIGKILL" in capsys.readouterr().err
    assert "so far" in (files / "sweep/logs/simclr,seed=0.log").read_text()


@pytest.mark.parametrize(
    ("code", "output", "reason"),
    [
        (-9, "epoch 1", "its process was ended by SIGKILL."),
        (2, "epoch 1\nerror: bad\n  input\n", "bad input"),
        (1, "Traceback\n  error: x\nKeyError: 'y'\n", "exit code 1: KeyError: 'y'"),
        (1, "", "exit code 1: it said nothing"),
    ],
)
def test_reasons(code, output, reason):
    assert stage.reason_of(code, output) == reason


def test_torchrun_is_not_for_a_sweep(files, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="without torchrun, and set devices=N"):
        stage.multirun(arguments(files, "simclr", "seed=0,1"), "pretrain")


def command_line(files: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ltplugins.cli", "pretrain", *arguments(files, *words)]
    return forked.run(command)


@pytest.mark.slow
def test_by_the_command_line(files):
    done = command_line(files, "simclr", "optimizer.batch_size=8,64")
    assert done.returncode == 1, done.stderr
    assert "batch_size=8 " in done.stdout
    assert "epoch 2/2" in done.stderr
    assert "failed: simclr,batch_size=64: fewer images" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.skipif(
    not has_plugin("hydra_joblib_launcher"),
    reason="hydra-joblib-launcher is not installed (extra: sweep)",
)
def test_joblib_launcher(files):
    done = command_line(
        files, "simclr", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    assert done.returncode == 0, done.stderr
    assert "simclr (n=2)" in done.stdout
    assert "[simclr,seed=1] " in done.stderr


@pytest.mark.parametrize("launcher", ["joblib", "submitit_slurm"])
def test_documented_launcher_lines_compose(launcher):
    """The very lines of docs/launch.md."""
    package = {"joblib": "hydra_joblib_launcher", "submitit_slurm": "hydra_submitit_launcher"}
    if not has_plugin(package[launcher]):
        pytest.skip(f"{package[launcher]} is not installed (extra: sweep)")
    text = (ROOT / "docs/launch.md").read_text().replace("\\\n", " ")
    line = next(x for x in text.splitlines() if f"... hydra/launcher={launcher}" in x)
    with initialize_config_module("ltplugins.conf", version_base="1.2"):
        cfg = compose("multirun", line.split()[1:], return_hydra_config=True)
    options = cfg.hydra.launcher
    assert options.n_jobs == 2 if launcher == "joblib" else options.partition == "gpu"
