# SPDX-License-Identifier: MIT
"""What a user sees who mistypes: one line, exit code 2, no folder; and what stays Hydra's."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ltplugins.cli import main
from tests.kit import forked
from tests.kit.hosts import on_the_stand_in
from tests.kit.tiny import tiny_config


def ltplugins(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ltplugins.cli", *arguments]
    env = {**os.environ, "LTPLUGINS_HOST": "builtin", "COLUMNS": "100"}
    return forked.run(command, cwd=cwd, env=env)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pretrain", "method=gh_simcl"), "unknown method 'gh_simcl'. Did you mean 'gh_simclr'?"),
        (
            ("pretrain", "method=gh_simclr", "method_kwargs.gh.temprature=0.2"),
            "unknown key 'method_kwargs.gh.temprature'. Did you mean 'temperature'?",
        ),
        (("pretrain", "--config-path", "nowhere"), "nowhere is no folder"),
        (("pretrain", "--config-name", "pretran"), "Did you mean 'pretrain'?"),
        (("pretrain", "--confg-name", "x"), "unrecognized arguments: --confg-name"),
        (("evaluate", "x.ckpt", "eval.knn.kk=3"), "unknown key 'eval.knn.kk'. Did you mean 'k'?"),
        (("evaluate", "x.ckpt", "devise=cpu"), "unknown key 'devise'. Did you mean 'device'?"),
        (("balance", "x", "epoch=3"), "unknown key 'epoch'. Did you mean 'epochs'?"),
        (("balance", "x", "init=freshh"), "expected one of stage_1, fresh"),
        (("evaluate", "x.ckpt", "+anything=1"), "unknown key 'anything'"),
        (("pretrain", "hydra.run.dir=/nowhere"), "Set output_dir, the folder of all"),
        (("pretrain", "hydra/launcher=nope"), "Could not find 'hydra/launcher/nope'"),
        (
            ("pretrain", "--multirun", "seed=1,2", "hydra/launcher=nope"),
            "unknown hydra/launcher 'nope'",
        ),
        (("pretrain", "--config-dir", "nothere"), "--config-dir: nothere is no folder"),
        (("pretrain", "name=../x"), "name: expected text that names a folder"),
        (("pretrain", "name=' '"), "name: expected text that names a folder"),
        (("pretrain", "name="), "name: expected text that names a folder"),
        (
            ("pretrain", "logger=tensorbord"),
            "unknown logger 'tensorbord'. Did you mean 'tensorboard'",
        ),
        (("pretrain", "callbacks=[early]"), "callbacks: expected blocks with a _target_"),
        (("pretrain", "default_root_dir=x"), "default_root_dir: expected nothing, got 'x'"),
        (("pretrain", "limit_test_batches=2"), "limit_test_batches: expected nothing, got 2"),
        (("pretrain", "trainer.max_epoch=2"), "unknown key 'trainer.max_epoch'. Did you mean"),
        (("pretrain", "trainer=gpu"), "trainer: expected a block of arguments of Lightning's"),
        (("report",), "the following arguments are required: runs"),
        (("evalute",), "invalid choice: 'evalute'"),
        (("demo", "--epochs", "0"), "argument --epochs: expected a whole number of 1 or more, got"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_one_line_exit_code_2_no_folder(arguments, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    shown = capsys.readouterr()
    assert end.value.code == 2
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert text in line
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_same_in_a_process_of_its_own(tmp_path):
    """A real interpreter, in which nothing is imported."""
    command = [sys.executable, "-m", "ltplugins.cli", "pretrain", "method=gh_simcl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: unknown method 'gh_simcl'. Did you mean 'gh_simclr'? Valid: ")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_the_file_does_not_list_trains(tmp_path):
    cfg = tiny_config(tmp_path, "gh_simclr", max_epochs=1)
    del cfg["accelerator"], cfg["devices"]
    OmegaConf.save(cfg, tmp_path / "tiny.yaml")
    done = ltplugins(
        *("pretrain", "--config-path", ".", "--config-name", "tiny", "enable_progress_bar=false"),
        *("accelerator=cpu", "devices=1", "method_kwargs.gh.epsilon=0.1", "output_dir=out"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "poch" not in done.stdout + done.stderr  # neither our progress nor Lightning's
    stored = OmegaConf.load(tmp_path / "out/config.yaml")
    assert stored.method_kwargs.gh.epsilon == 0.1
    assert stored.enable_progress_bar is False


def test_hydras_own_options_stay_hydras(tmp_path):
    shown = ltplugins("pretrain", "--cfg", "job", "enable_progress_bar=false", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert OmegaConf.create(shown.stdout).enable_progress_bar is False
    text = ltplugins("pretrain", "--help", cwd=tmp_path)
    assert text.returncode == 0, text.stderr
    assert "Configuration groups" in text.stdout
    assert "method: " in text.stdout
    # README: the help lists every key, also one that the packaged file does not have.
    for line in (r"at the top: .*\bmax_steps\b.*\boverwrite\b", r"data: .*\btrain_path\b"):
        assert re.search(line, text.stdout)


@on_the_stand_in
def test_a_base_that_only_solo_learn_has_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(("pretrain", "method=gh_nnclr"))
    assert end.value.code == 2
    assert "gh_nnclr needs solo-learn as host, which has nnclr" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_and_what_comes_next_is_said(tmp_path, monkeypatch, caplog):
    OmegaConf.save(tiny_config(tmp_path, "simclr", max_epochs=1), tmp_path / "tiny.yaml")
    monkeypatch.setattr("ltplugins.stages.launch.set_up_logging", lambda: None)
    with caplog.at_level(logging.INFO, "ltplugins"):
        main(("pretrain", "--config-path", str(tmp_path), "--config-name", "tiny"))
    last = [record.getMessage() for record in caplog.records][-2:]
    assert last[0].startswith(f"written: {tmp_path}/run (config.yaml, run.json, metrics.csv, check")
    assert last[1] == f"next: ltplugins evaluate {tmp_path}/run"


def test_ctrl_c_before_a_training_ends_with_130(monkeypatch, capsys):
    def stopped(cfg):
        raise KeyboardInterrupt

    monkeypatch.setattr("ltplugins.stages.evaluate.evaluate", stopped)
    with pytest.raises(SystemExit) as end:
        main(("evaluate", "anything"))
    assert end.value.code == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().err
