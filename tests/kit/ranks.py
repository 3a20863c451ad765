# SPDX-License-Identifier: MIT
"""Run a function in several processes; a rank that hangs or dies fails the caller.

The function is one of a module's own names. Each rank is this file as a program.
"""

import datetime
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kit.forked import Popen
from tests.kit.launch import HANG_SECONDS, free_port
from tests.kit.paths import ROOT


def join_ranks(rank: int, world: int, folder: Path) -> None:
    """Join a gloo group on the stand-in host; a rank that waits in vain fails.

    It is left by the process's end: torch 2.6's destroy_process_group() waits, once in a while,
    for ever for a rank that has left before.
    """
    import torch

    torch.set_num_threads(1)
    os.environ["LTPLUGINS_HOST"] = "builtin"
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=HANG_SECONDS / 2),
    )


def as_launched(rank: int, world: int) -> None:
    """Make Lightning take this rank for one that a launcher has started, and start none itself.

    It uses the group that is there; the address is only asked for.
    """
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))


def run_ranks(
    work: Callable[[int, int, Path], Any], world: int, folder: Path, timeout: float = HANG_SECONDS
) -> list[Any]:
    """Call ``work(rank, world, folder)`` in ``world`` processes.

    Returns:
        What each rank returned, through a file of ``torch.save``.

    Raises:
        AssertionError: a rank failed, or was still running after ``timeout`` seconds.
    """
    command = [sys.executable, "-m", "tests.kit.ranks", work.__module__, work.__name__]
    ranks = [
        Popen([*command, f"{rank}", f"{world}", str(folder)], cwd=ROOT) for rank in range(world)
    ]
    deadline = time.monotonic() + timeout
    try:
        codes: list[int | None] = [None]
        # One that has failed is waited for by the others, in vain.
        while None in codes and not any(codes) and time.monotonic() < deadline:
            time.sleep(0.05)
            codes = [process.poll() for process in ranks]
        assert codes == [0] * world, f"exit codes by rank {codes}; None is a rank that hung"
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    import torch

    return [torch.load(_result(folder, rank), weights_only=False) for rank in range(world)]


def _on_rank(module: str, name: str, rank: int, world: int, folder: Path) -> None:
    found = getattr(importlib.import_module(module), name)(rank, world, folder)
    import torch  # after the work, which may end this process

    torch.save(found, _result(folder, rank))


def _result(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.pt"


def hang_on_rank_1(rank: int, world: int, folder: Path) -> None:
    while rank == 1:
        time.sleep(60)


def die_on_rank_1(rank: int, world: int, folder: Path) -> None:
    if rank == 1:
        raise SystemExit(3)
    time.sleep(HANG_SECONDS / 5)
    (folder / "waited").touch()


if __name__ == "__main__":
    _on_rank(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
