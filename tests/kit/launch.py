# SPDX-License-Identifier: MIT
"""Start runs of several processes as a user does, and see that nothing of them lives on."""

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

from tests.kit.forked import Popen

# No verdict hangs on it: it ends a test whose processes would never end.
HANG_SECONDS = 600.0
CLI = [sys.executable, "-m", "ltplugins.cli", "pretrain"]
# Lightning starts the other ranks with the same script, so that all of them have the change.
CHANGED = "{change}\nfrom ltplugins.cli import main\nmain()\n"


# One rank waits at a batch, "RANK EPOCH BATCH", and leaves a file there: whatever the machine's
# load, it is met in the middle of its work, and the others wait for it.
HOLDS = """
import os, pathlib, signal
from ltplugins.training.seeds import EpochSeed
def on_train_batch_start(self, trainer, module, batch, batch_idx):
    place = f"{trainer.global_rank} {trainer.current_epoch} {batch_idx}"
    while os.environ.get("HOLD") == place:
        pathlib.Path(os.environ["HELD"]).touch()
        signal.pause()
EpochSeed.on_train_batch_start = on_train_batch_start
"""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def changed_cli(path: Path, change: str) -> list[str]:
    """The command line of a script that runs ``change`` first and then is ``ltplugins``."""
    path.write_text(CHANGED.format(change=change))
    return [sys.executable, str(path), "pretrain"]


def start(
    command: list[str],
    folder: Path,
    name: str,
    *overrides: str,
    popen: type[subprocess.Popen] = Popen,
    **env: str,
) -> Any:
    """Start the run of ``tiny.yaml`` into ``name``; its processes carry a mark.

    Args:
        popen: subprocess's own for processes that are no forks.
    """
    where = ["--config-path", str(folder), "--config-name", "tiny", f"output_dir={folder / name}"]
    mark = uuid.uuid4().hex
    more = {"LTPLUGINS_HOST": "builtin", "OMP_NUM_THREADS": "1", "TEST_MARK": mark}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process: Any = popen([*command, *where, *overrides], env={**os.environ, **more, **env}, **pipes)
    process.mark = mark
    return process


def start_held(
    folder: Path, name: str, place: str, launcher: tuple[str, ...] = (sys.executable,), **env: str
) -> Any:
    """Start a run, and return when the rank of ``place`` ("RANK EPOCH BATCH") waits there."""
    script = changed_cli(folder / "holds.py", HOLDS)[1:]
    held = folder / f"{name}.held"
    held.unlink(missing_ok=True)
    process = start([*launcher, *script], folder, name, HOLD=place, HELD=str(held), **env)
    wait_for(held, process)
    return process


def wait_for(path: Path, process: Any) -> None:
    """Return when a file is there that the process writes; the limit is for a hang alone."""
    deadline = time.monotonic() + HANG_SECONDS
    while not path.exists():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, f"{path.name} has not come"
        time.sleep(0.01)


def finish(process: Any, seconds: float = HANG_SECONDS) -> tuple[int, str]:
    """Exit code and standard error; nothing of the run may live on."""
    try:
        errors = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        for pid in members(process):
            os.kill(pid, signal.SIGKILL)
        pytest.fail(f"still running after {seconds} s: {process.communicate()[1][-2000:]}")
    deadline = time.monotonic() + 60  # killed, but not yet gone where the machine is busy
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


def one_line(errors: str, *texts: str) -> None:
    """The error is told once, on one line, with the way out."""
    lines = [line for line in errors.splitlines() if "the same command continues it" in line]
    assert len(lines) == 1, errors[-3000:]
    for text in texts:
        assert text in lines[0]
