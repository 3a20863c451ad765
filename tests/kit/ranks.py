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


def join_ranks(rank: int, world: int, folder: Path, *, seconds: int) -> None:
    """Join a gloo group on the stand-in host; a rank that waits longer than that fails."""
    import torch

    torch.set_num_threads(1)
    os.environ["LTPLUGINS_HOST"] = "builtin"
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=seconds),
    )


def run_ranks(work: Callable[..., None], world: int, folder: Path, timeout: float) -> None:
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
    time.sleep(60 if rank == 1 else 0)


def die_on_rank_1(rank: int, world: int, folder: Path) -> None:
    if rank == 1:
        raise SystemExit(3)
    time.sleep(60)
