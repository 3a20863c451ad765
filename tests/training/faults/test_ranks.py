# SPDX-License-Identifier: MIT
"""Runs of two processes by the command line: a rank that dies or hangs ends them all, every
launcher agrees.

Each broken run is continued under another launcher than the one that began it, and ends as the
unbroken run of ``devices=2``: torchrun, SLURM (its environment variables) and Lightning's own.
"""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.training.faults import ranks
from tests.kit.launch import CLI, changed_cli, finish, members, one_line, start
from tests.kit.runs import assert_same_run, load
from tests.kit.tiny import tiny_config

EPOCHS = 16
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TORCHRUN += ["-m", "ltplugins.cli", "pretrain"]
# One rank goes wrong in the second epoch.
GOES_WRONG = """
import os, signal, time
from ltplugins.training.seeds import EpochSeed
start = EpochSeed.on_train_epoch_start
def on_train_epoch_start(self, trainer, module):
    if trainer.current_epoch == 1 and trainer.global_rank == int(os.environ["WRONG_RANK"]):
        {what}
    start(self, trainer, module)
EpochSeed.on_train_epoch_start = on_train_epoch_start
"""


def wait_for_epoch(process: Any, folder: Path) -> None:
    """Until the run has a checkpoint and is in the middle of a later epoch."""
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints/last.ckpt").exists():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny.yaml`` and the unbroken run of ``devices=2`` in ``whole``."""
    folder = tmp_path_factory.mktemp("ranks")
    changes = {"devices": 2, "strategy": "ddp", "optimizer__batch_size": 4, "rank_timeout": 60}
    cfg = tiny_config(folder, max_epochs=EPOCHS, log_every_n_steps=1, **changes)
    OmegaConf.save(cfg, folder / "tiny.yaml")
    code, errors = finish(start(CLI, folder, "whole"))
    assert code == 0, errors[-3000:]
    return folder


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_torchrun_continues_it(runs: Path) -> None:
    process = start(CLI, runs, "one")
    wait_for_epoch(process, runs / "one")
    os.kill(members(process, rank=1)[0], signal.SIGKILL)
    code, errors = finish(process, 20)
    assert code == 1
    one_line(errors, "error: rank 1 was ended by SIGKILL")
    assert "Traceback" not in errors
    assert 0 < load(runs / "one/checkpoints/last.ckpt")["epoch"] + 1 < EPOCHS
    code, errors = finish(start(TORCHRUN, runs, "one"))
    assert code == 0, errors[-3000:]
    assert "going on from" in errors
    assert_same_run(runs / "whole", runs / "one")


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


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.slow
def test_the_first_rank_killed_and_slurm_continues(runs: Path) -> None:
    process = start(CLI, runs, "zero")
    wait_for_epoch(process, runs / "zero")
    os.kill(members(process, rank=1)[0], signal.SIGSTOP)  # even then it does not live on
    os.kill(process.pid, signal.SIGKILL)
    code, errors = finish(process, 20)
    assert code == -signal.SIGKILL
    one_line(errors, "error: rank 0 has ended")
    port = free_port()
    both = [slurm_rank(runs, "zero", rank, port) for rank in (0, 1)]
    for process in both:
        code, errors = finish(process)
        assert code == 0, errors[-3000:]
    assert_same_run(runs / "whole", runs / "zero")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_raises_ends_the_run(rank: int, runs: Path) -> None:
    what = 'raise KeyError("a defect")'
    command = changed_cli(runs / "raises.py", GOES_WRONG.format(what=what))
    process = start(command, runs, f"raises{rank}", WRONG_RANK=str(rank))
    code, errors = finish(process, 60)
    assert code == 1
    assert "KeyError: 'a defect'" in errors
    one_line(errors, f"error: rank {rank} ended with ")
    assert (runs / f"raises{rank}/checkpoints/last.ckpt").exists()


# Continued by whoever ends the run, it goes on hanging.
HANGS = "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(1000)"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_waited_for_and_ended(rank: int, runs: Path) -> None:
    command = changed_cli(runs / "hangs.py", GOES_WRONG.format(what=HANGS))
    name = f"hangs{rank}"
    process = start(command, runs, name, "rank_timeout=10", WRONG_RANK=str(rank))
    code, errors = finish(process, 60)
    assert code == 1, errors[-3000:]
    one_line(errors, f"error: rank {rank} did not answer rank {1 - rank} within 10 s.")
    assert "Traceback" not in errors
    assert load(runs / name / "checkpoints/last.ckpt")["epoch"] == 0


@pytest.mark.slow
def test_a_rank_killed_under_torchrun_ends_the_run(runs: Path) -> None:
    process = start(TORCHRUN, runs, "torchrun")
    wait_for_epoch(process, runs / "torchrun")
    os.kill(members(process, rank=1)[0], signal.SIGKILL)
    code, errors = finish(process, 60)
    assert code == 1
    assert "SIGKILL" in errors


def test_a_first_rank_that_cannot_watch_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    """What its started ranks leave behind does it; one that ends by itself is let be."""
    for command, code in (["sleep", "100"], -signal.SIGKILL), (["true"], 0):
        stuck = subprocess.Popen(command)
        ending = multiprocessing.get_context("fork").Process(
            target=ranks.leave_to_parent, args=(stuck.pid, "stuck")
        )
        ending.start()
        assert stuck.wait(20) == code
        ending.join()
        assert ending.exitcode == ranks.UNANSWERED
    assert capfd.readouterr().err == "error: stuck\n"


class Process:
    """A process that ends when it is told to."""

    def __init__(self, code: int | None = None) -> None:
        self.code, self.signals = code, []

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, signum: int) -> None:
        self.signals.append(signum)


def test_the_watch_names_the_rank_and_ends_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    ended: list[int] = []
    others = {1: Process(), 2: Process(3), 3: Process(-11)}
    ranks.RankWatch(others, ended.append, str).run()  # type: ignore[arg-type]
    assert ended == [1]
    assert others[1].signals == [signal.SIGKILL]
    said = capsys.readouterr().err
    assert "rank 2 ended with exit code 3, rank 3 was ended by SIGSEGV." in said
    ranks.RankWatch({1: Process(0)}, ended.append, str).run()  # type: ignore[arg-type]
    hung = {1: Process(ranks.UNANSWERED), 2: Process()}
    ranks.RankWatch(hung, ended.append, "rank {} waited".format).run()  # type: ignore[arg-type]
    assert ended == [1, 1]
    assert "rank 1 waited. The run has ended" in capsys.readouterr().err
    quiet = ranks.RankWatch({1: Process(-9)}, ended.append, str)  # type: ignore[arg-type]
    quiet.kill(signal.SIGKILL)  # on purpose: no news
    quiet.run()
    assert ended == [1, 1]


@pytest.mark.parametrize(
    ("error", "echo"),
    [
        (torch.distributed.DistBackendError("x"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer"), True),
        (RuntimeError("NCCL communicator was aborted"), True),
        (RuntimeError("shapes do not fit"), False),
        (KeyError("gloo"), False),
        (RuntimeError("Application timeout caused pair closure"), True),
        (RuntimeError("DataLoader timed out after 5 seconds"), False),
    ],
)
def test_echoes_of_another_ranks_end(error: Exception, echo: bool) -> None:
    assert ranks.is_echo(error) == echo
    assert ranks.is_timeout(error) == (echo and "timeout" in str(error))
