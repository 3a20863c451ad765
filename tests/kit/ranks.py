# SPDX-License-Identifier: MIT
"""Run a function in several processes; a rank that hangs or dies fails the caller.

No torch at the top: the ranks that only hang or die should not wait for its import.
"""

import datetime
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kit.launch import HANG_SECONDS, free_port


def join_ranks(rank: int, world: int, folder: Path) -> None:
    """Join a gloo group on the stand-in host; a rank that waits in vain fails."""
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
    work: Callable[..., None], world: int, folder: Path, timeout: float = HANG_SECONDS
) -> None:
    """Call ``work(rank, world, folder)`` in ``world`` processes.

    Raises:
        AssertionError: a rank failed, or was still running after ``timeout`` seconds.
    """
    # One server imports the slow packages; each rank is forked from it, before any thread exists.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ltplugins.host.builtin"])
    ranks: list[Any] = [
        context.Process(target=work, args=(rank, world, folder), daemon=True)
        for rank in range(world)
    ]
    for process in ranks:
        process.start()
    deadline = time.monotonic() + timeout
    try:
        while any(p.is_alive() for p in ranks) and time.monotonic() < deadline:
            if any(p.exitcode for p in ranks):
                break  # the others would wait for it
            time.sleep(0.05)
        codes = [p.exitcode for p in ranks]
        assert codes == [0] * world, f"exit codes by rank {codes}; None is a rank that hung"
    finally:
        for process in ranks:
            process.kill()
            process.join()


def hang_on_rank_1(rank: int, world: int, folder: Path) -> None:
    while rank == 1:
        time.sleep(60)


def die_on_rank_1(rank: int, world: int, folder: Path) -> None:
    if rank == 1:
        raise SystemExit(3)
    time.sleep(HANG_SECONDS / 5)
    (folder / "waited").touch()
