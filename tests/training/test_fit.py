# SPDX-License-Identifier: MIT
"""The skeleton of a training: it lets go of the folder whatever happens."""

import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest

from ltplugins.config.resolve import resolve
from ltplugins.runs.facts import Origin, RunFacts, SplitFacts
from ltplugins.training.fit import Job, Training
from tests.kit.tiny import tiny_config

ORIGIN = Origin(method="simclr", host="h", split=SplitFacts("all", "abc", 3, [2, 1], ["a", "b"]))
TRY_LOCK = "import fcntl,sys; fcntl.lockf(open(sys.argv[1],'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def is_free(folder: Path) -> bool:
    """Whether another process could write there; a lock does not hold against its own process."""
    command = [sys.executable, "-c", TRY_LOCK, str(folder / ".lock")]
    return subprocess.run(command, capture_output=True, timeout=600).returncode == 0


def job(config, announce) -> Job:
    nothing = pl.LightningModule(), pl.LightningDataModule()
    return Job(*nothing, config.host, {"seed": 1}, ORIGIN, announce)


def test_an_error_lets_go_of_the_folder(tmp_path):
    config = resolve(tiny_config(tmp_path, "simclr"))
    training = Training(config, config.output_dir, "tiny")
    was_free = []

    def fail():
        was_free.append(is_free(training.run.path))
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        training.start(job(config, fail))
    assert was_free == [False]
    assert is_free(training.run.path)


def test_a_finished_run_is_not_announced(tmp_path):
    config = resolve(tiny_config(tmp_path, "simclr"))
    training = Training(config, config.output_dir, "tiny")
    training.run.open(config.host, {"seed": 1}, ORIGIN)
    training.run.update(finished="now")
    training.run.close()
    assert training.start(job(config, lambda: pytest.fail("announced"))) == tmp_path / "run"
    assert RunFacts.read(tmp_path / "run/run.json").finished == "now"
    assert is_free(training.run.path)
