# SPDX-License-Identifier: MIT
"""Runs of two processes by the command line: whole, broken, refused, under every launcher.

A rank that dies or hangs ends them all. Each broken run is continued under another launcher than
the one that began it, and ends as the unbroken run of ``devices=2``: torchrun, SLURM (its
environment variables) and Lightning's own. A rank goes wrong at a batch, not at a time.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.kit.launch import (
    CLI,
    changed_cli,
    finish,
    free_port,
    members,
    one_line,
    start,
    start_held,
)
from tests.kit.runs import assert_same_run, load
from tests.kit.tiny import tiny_config

# One worker runs them all: the unbroken run is trained once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rank_runs")]
EPOCHS = 4
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
TORCHRUN = [*LAUNCHER, "-m", "ltplugins.cli", "pretrain"]
# One rank goes wrong in the second epoch.
GOES_WRONG = """
import datetime, os, signal, time
import torch
from ltplugins.training.seeds import EpochSeed
start = EpochSeed.on_train_epoch_start
def on_train_epoch_start(self, trainer, module):
    if trainer.current_epoch == 1:
        wrong = trainer.global_rank == int(os.environ["WRONG_RANK"])
        {what}
    start(self, trainer, module)
EpochSeed.on_train_epoch_start = on_train_epoch_start
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny.yaml`` and the unbroken run of ``devices=2`` in ``whole``."""
    folder = tmp_path_factory.mktemp("ranks")
    changes = {"devices": 2, "strategy": "ddp", "sync_batchnorm": True, "rank_timeout": 3600}
    changes |= {"max_epochs": EPOCHS, "log_every_n_steps": 1, "optimizer__batch_size": 4}
    OmegaConf.save(tiny_config(folder, **changes), folder / "tiny.yaml")
    # Two real interpreters, each with a hash seed of its own: what other runs are compared with.
    code, errors = finish(start(CLI, folder, "whole", popen=subprocess.Popen))
    assert code == 0, errors[-3000:]
    assert "sync_batchnorm needs a GPU" in errors
    assert errors.count(f"epoch {EPOCHS}/{EPOCHS}") == 1  # said once, by the first process
    return folder


def test_a_whole_run_of_two_processes(runs: Path) -> None:
    run = runs / "whole"
    names = {p.name for p in run.iterdir()}
    assert names == {"config.yaml", "run.json", "metrics.csv", "checkpoints", ".lock"}
    files = {p.name for p in (run / "checkpoints").iterdir()}
    assert files == {"last.ckpt", "previous.ckpt", "args.json"}
    facts = json.loads((run / "run.json").read_text())
    assert facts["finished"]
    assert facts["identity"]["world_size"] == 2
    assert "pretrain" in facts["command"]
    rows = (run / "metrics.csv").read_text().splitlines()
    keys = [",".join(row.split(",")[:3]) for row in rows]
    assert len(keys) == len(set(keys))
    assert load(run / "checkpoints/last.ckpt")["global_step"] == EPOCHS * (42 // 2 // 4)


def slurm_rank(folder: Path, name: str, rank: int, port: int) -> Any:
    """What ``srun`` starts, by the variables that it sets."""
    env = {
        "SLURM_JOB_ID": "4",
        "SLURM_JOB_NAME": "pretrain",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return start(CLI, folder, name, **env)


def under_slurm(folder: Path, name: str) -> tuple[int, str]:
    """What both ranks say whom ``srun`` has started."""
    port = free_port()
    both = [finish(each) for each in [slurm_rank(folder, name, rank, port) for rank in (0, 1)]]
    return max(code for code, _ in both), "".join(errors for _, errors in both)


def test_a_run_goes_on_under_another_launcher_whoever_was_killed(runs: Path) -> None:
    """Killed in every epoch but its first, each time otherwise, it ends as the unbroken run."""

    def killed(place: str, rank: int, launcher: tuple[str, ...], *before: int) -> tuple[int, str]:
        process = start_held(runs, "killed", place, launcher=launcher)
        for other in before:
            os.kill(members(process, rank=other)[0], signal.SIGSTOP)
        os.kill(members(process, rank=rank)[0] if rank else process.pid, signal.SIGKILL)
        return finish(process)

    def epoch() -> int:
        return load(runs / "killed/checkpoints/last.ckpt")["epoch"]

    lightning = (sys.executable,)
    code, errors = killed("1 1 3", 1, lightning)
    assert (code, epoch()) == (1, 0)
    one_line(errors, "error: rank 1 was ended by SIGKILL")
    assert "Traceback" not in errors

    code, errors = killed("1 2 3", 1, LAUNCHER)
    assert (code, epoch()) == (1, 1)
    assert "going on from" in errors
    assert "SIGKILL" in errors

    # The first rank, which has started the other: even stopped it does not live on.
    code, errors = killed("0 3 3", 0, lightning, 1)
    assert (code, epoch()) == (-signal.SIGKILL, 2)
    one_line(errors, "error: rank 0 has ended")

    code, errors = under_slurm(runs, "killed")
    assert code == 0, errors[-3000:]
    assert_same_run(runs / "whole", runs / "killed")
    assert (runs / "whole/metrics.csv").read_text() == (runs / "killed/metrics.csv").read_text()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_raises_ends_the_run(rank: int, runs: Path) -> None:
    what = 'if wrong: raise KeyError("a defect")'
    command = changed_cli(runs / "raises.py", GOES_WRONG.format(what=what))
    process = start(command, runs, f"raises{rank}", WRONG_RANK=str(rank))
    code, errors = finish(process)
    assert code == 1
    assert "KeyError: 'a defect'" in errors
    one_line(errors, f"error: rank {rank} ended with ")
    assert (runs / f"raises{rank}/checkpoints/last.ckpt").exists()


# Continued by whoever ends the run, it goes on hanging. The other's patience has held through the
# start, which takes long on a busy machine, and ends here.
HANGS = """
        while wrong:
            os.kill(os.getpid(), signal.SIGSTOP); time.sleep(1000)
        group = torch.distributed.group.WORLD
        backend = group._get_backend(torch.device("cpu"))
        assert backend.options._timeout == datetime.timedelta(seconds=900), backend.options._timeout
        backend._set_default_timeout(datetime.timedelta(seconds=3))
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_waited_for_and_ended(rank: int, runs: Path) -> None:
    command = changed_cli(runs / "hangs.py", GOES_WRONG.format(what=HANGS.strip()))
    name = f"hangs{rank}"
    process = start(command, runs, name, "rank_timeout=900", WRONG_RANK=str(rank))
    code, errors = finish(process)
    assert code == 1, errors[-3000:]
    one_line(errors, f"error: rank {rank} did not answer rank {1 - rank} within 900 s.")
    assert "Traceback" not in errors
    assert load(runs / name / "checkpoints/last.ckpt")["epoch"] == 0


def test_a_finished_run_ends_every_rank(runs: Path) -> None:
    before = (runs / "whole/checkpoints/last.ckpt").stat().st_mtime_ns
    code, errors = finish(start(TORCHRUN, runs, "whole"))
    assert code == 0, errors[-3000:]
    assert errors.count("is complete: nothing to train") == 1
    assert (runs / "whole/checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_every_rank_sees_another_configs_run(runs: Path) -> None:
    code, errors = finish(start(CLI, runs, "whole", "seed=9"))
    assert code != 0
    assert "seed: 0 there, 9 here" in " ".join(errors.split())


def test_foreign_files_are_seen_by_the_first_rank_and_end_the_rest(runs: Path) -> None:
    foreign = runs / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    code, errors = finish(start(TORCHRUN, runs, "foreign"))
    assert code != 0
    assert "not empty and holds no run" in " ".join(errors.split())
    assert [p.name for p in foreign.iterdir() if p.name != ".lock"] == ["thesis.tex"]


# A rank sends a signal to itself, as a scheduler does to one process of a job or to all of them.
SENDS = """
import os, signal
from ltplugins.training.seeds import EpochSeed
def on_train_batch_start(self, trainer, module, batch, batch_idx):
    place = f"{trainer.current_epoch} {batch_idx}"
    if place == os.environ.get("PLACE") and str(trainer.global_rank) in os.environ["RANKS"]:
        os.kill(os.getpid(), signal.SIGTERM)
EpochSeed.on_train_batch_start = on_train_batch_start
"""


def test_a_signal_to_any_rank_ends_all_at_the_same_step(runs: Path) -> None:
    command = changed_cli(runs / "sends.py", SENDS)
    for ranks, place, done in (("1", "1 1", 2), ("0 1", "2 0", 1), ("0", "2 3", 4)):
        code, errors = finish(start(command, runs, "stopped", PLACE=place, RANKS=ranks))
        assert code == 143, errors[-3000:]
        assert errors.count("stopped by SIGTERM") == 1
        assert f"and {done} of 5 batches; the same command continues" in errors
        assert "error:" not in errors
        within = load(runs / "stopped/checkpoints/stopped.ckpt")["ltplugins"]["within"]
        assert len(within["ranks"]) == 2
    code, errors = finish(start(CLI, runs, "stopped"))
    assert code == 0, errors[-3000:]
    assert_same_run(runs / "whole", runs / "stopped")
    assert (runs / "whole/metrics.csv").read_text() == (runs / "stopped/metrics.csv").read_text()
