# SPDX-License-Identifier: MIT
"""Runs of two processes by the command line: a rank that dies ends them all, every launcher agrees.

Each broken run is continued under another launcher than the one that began it, and ends as the
unbroken run of ``devices=2``: torchrun, SLURM (its environment variables) and Lightning's own.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_config
from omegaconf import OmegaConf
from run_helpers import assert_same_run, load

from ltplugins.stages import ranks

EPOCHS = 16
CLI = [sys.executable, "-m", "ltplugins.cli", "pretrain"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TORCHRUN += ["-m", "ltplugins.cli", "pretrain"]
# A run in which one rank raises; Lightning starts the other rank with the same script.
RAISES = """
import os
from ltplugins.stages.callbacks import EpochSeed
start = EpochSeed.on_train_epoch_start
def on_train_epoch_start(self, trainer, module):
    if trainer.current_epoch == 1 and trainer.global_rank == int(os.environ["RAISE"]):
        raise KeyError("a defect")
    start(self, trainer, module)
EpochSeed.on_train_epoch_start = on_train_epoch_start
from ltplugins.cli import main
main()
"""


def start(command: list[str], folder: Path, name: str, **env: str) -> Any:
    """Start the run of ``tiny.yaml`` into ``name``; its processes carry a mark."""
    where = ["--config-path", str(folder), "--config-name", "tiny", f"output_dir={folder / name}"]
    mark = uuid.uuid4().hex
    more = {"LTPLUGINS_HOST": "builtin", "OMP_NUM_THREADS": "1", "TEST_MARK": mark}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process: Any = subprocess.Popen([*command, *where], env={**os.environ, **more, **env}, **pipes)
    process.mark = mark
    return process


def finish(process: Any, seconds: float = 240) -> tuple[int, str]:
    """Exit code and standard error; nothing of the run may live on."""
    try:
        errors = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        for pid in members(process):
            os.kill(pid, signal.SIGKILL)
        pytest.fail(f"still running after {seconds} s: {process.communicate()[1][-2000:]}")
    deadline = time.monotonic() + 10
    while members(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    orphans = members(process)
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    assert not orphans, f"{len(orphans)} processes outlived the run"
    return process.returncode, errors


def members(process: Any, rank: int | None = None) -> list[int]:
    """The processes of a run that still live, by a mark in their environment (of one rank)."""
    wanted = {f"TEST_MARK={process.mark}".encode()}
    if rank is not None:
        wanted.add(f"LOCAL_RANK={rank}".encode())
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted <= set(path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


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


def one_line(errors: str, *texts: str) -> None:
    """The error is told once, on one line, with the way out."""
    lines = [line for line in errors.splitlines() if "the same command continues it" in line]
    assert len(lines) == 1, errors[-3000:]
    for text in texts:
        assert text in lines[0]


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
    script = runs / "raises.py"
    script.write_text(RAISES)
    command = [sys.executable, str(script), "pretrain"]
    process = start(command, runs, f"raises{rank}", RAISE=str(rank))
    code, errors = finish(process, 60)
    assert code == 1
    assert "KeyError: 'a defect'" in errors
    one_line(errors, f"error: rank {rank} ended with ")
    assert (runs / f"raises{rank}/checkpoints/last.ckpt").exists()


@pytest.mark.slow
def test_a_rank_killed_under_torchrun_ends_the_run(runs: Path) -> None:
    process = start(TORCHRUN, runs, "torchrun")
    wait_for_epoch(process, runs / "torchrun")
    os.kill(members(process, rank=1)[0], signal.SIGKILL)
    code, errors = finish(process, 60)
    assert code == 1
    assert "SIGKILL" in errors


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
    ranks.RankWatch(others, ended.append).run()  # type: ignore[arg-type]
    assert ended == [1]
    assert others[1].signals == [signal.SIGKILL]
    said = capsys.readouterr().err
    assert "rank 2 ended with exit code 3, rank 3 was ended by SIGSEGV." in said
    ranks.RankWatch({1: Process(0)}, ended.append).run()  # type: ignore[arg-type]
    quiet = ranks.RankWatch({1: Process(-9)}, ended.append)  # type: ignore[arg-type]
    quiet.kill(signal.SIGKILL)  # on purpose: no news
    quiet.run()
    assert ended == [1]


@pytest.mark.parametrize(
    ("error", "echo"),
    [
        (torch.distributed.DistBackendError("x"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer"), True),
        (RuntimeError("NCCL communicator was aborted"), True),
        (RuntimeError("shapes do not fit"), False),
        (KeyError("gloo"), False),
    ],
)
def test_echoes_of_another_ranks_end(error: Exception, echo: bool) -> None:
    assert ranks.is_echo(error) == echo
