# SPDX-License-Identifier: MIT
"""SIGTERM, Ctrl-C and SLURM's SIGUSR1: at random moments of every stage, and of two ranks."""

import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from scripts.soak.children import LIMIT, Ended
from scripts.soak.kills import STAGES, hit_at
from scripts.soak.ledger import EQUAL, LOST, Case, Ledger
from scripts.soak.tasks import Bench, is_same
from tests.kit.launch import CLI, free_port, members, start
from tests.kit.tiny import tiny_config

SIGNALS, RANKS = "signals", "ranks"
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_SLURM = {
    "SLURM_JOB_ID": "4",
    "SLURM_JOB_NAME": "soak",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "localhost",
    "SLURM_NODELIST": "localhost",
    "MASTER_ADDR": "127.0.0.1",
}
_GOES_ON = "the same command"
# Two ranks train on until they are stopped; then to the end.
_EPOCHS = 60


def each_signal(bench: Bench, ledger: Ledger, times: int, seed: int) -> Iterator[Case]:
    """Each signal at random moments of each stage, SIGUSR1 under SLURM's variables."""
    for name, build in STAGES.items():
        for number in NUMBERS:
            row = f"{signal.Signals(number).name}, {name}"
            for case in range(times):
                if ledger.has(SIGNALS, row, str(case)):
                    continue
                task = build(bench)
                bench.hit(task)
                draw = random.Random(f"{seed} {row} {case}")
                slurm = _under_slurm if number == signal.SIGUSR1 else None
                ended = hit_at(bench, task, draw, number, before=slurm)
                wrong = _wrong(ended, number)
                if wrong or ended is None:
                    yield Case(SIGNALS, row, str(case), LOST, what=wrong)
                    continue
                yield bench.judge(task, SIGNALS, row, str(case), before=bench.tell(ended))


def _under_slurm() -> None:
    os.environ.update(_SLURM, MASTER_PORT=str(free_port()))


def _wrong(ended: Ended | None, number: int) -> str:
    """What is not as it should be of a command that a signal has ended; empty if nothing.

    Before it trains, a signal does to it what it does to any program; what is done may end as it
    would have.
    """
    if ended is None:
        return "it was never met in its work"
    if ended.code in (-number, 0):
        return ""
    if ended.code != 128 + number:
        return f"exit {ended.code}: {ended.said[-200:]}"
    return "" if _GOES_ON in ended.said else f"no line says how to go on: {ended.said[-200:]}"


def ranks(bench: Bench, ledger: Ledger, times: int) -> Iterator[Case]:
    """Two ranks, of which one, or the whole group, gets a signal while they train."""
    home = bench.folder / "ranks"
    whole = home / "whole"
    wanted = [(s, who) for s in (*NUMBERS[:2], signal.SIGKILL) for who in ("group", "0", "1")]
    for number, who in wanted:
        to = "the group" if who == "group" else f"rank {who}"
        row = f"{signal.Signals(number).name} to {to} of two ranks"
        for case in range(times):
            if ledger.has(RANKS, row, str(case)):
                continue
            if not (whole / "checkpoints/last.ckpt").exists():
                _write_config(home)
                code, said = _finish(_start(home, "whole"))
                assert code == 0, said[-2000:]
            yield _rank_case(home, whole, number, who, row, str(case))


def _write_config(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    changes = {"devices": 2, "strategy": "ddp", "rank_timeout": 120, "optimizer__batch_size": 4}
    cfg = tiny_config(home, "simclr", max_epochs=_EPOCHS, log_every_n_steps=1, **changes)
    OmegaConf.save(cfg, home / "tiny.yaml")


def _start(home: Path, name: str) -> Any:
    alone = functools.partial(subprocess.Popen, start_new_session=True)
    return start(CLI, home, name, popen=alone)  # type: ignore[arg-type]


def _finish(process: Any) -> tuple[int | None, str]:
    try:
        said = process.communicate(timeout=LIMIT)[1]
        code = process.returncode
    except subprocess.TimeoutExpired:
        code, said = None, ""
    deadline = time.monotonic() + 30
    while code is not None and members(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = members(process)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    if code is None:
        said = process.communicate()[1]
    return (None if left else code), said


def _rank_case(home: Path, whole: Path, number: int, who: str, row: str, key: str) -> Case:
    subprocess.run(["rm", "-rf", str(home / "hit")], check=True)
    process = _start(home, "hit")
    begun = home / "hit/checkpoints/previous.ckpt"
    end = time.monotonic() + LIMIT
    while not begun.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    if who == "group":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if who == "0" else members(process, rank=1)[0], number)
    began = time.monotonic()
    code, said = _finish(process)
    took = time.monotonic() - began
    lines = [x for x in said.splitlines() if x.startswith(("error:", "WARNING", "stopped"))]
    seen = "\n".join(lines[:2]).replace(f"{home}/", "")
    killed = number == signal.SIGKILL
    fine = (1, -number) if killed else (128 + number,)
    if code not in fine:
        return Case(RANKS, row, key, LOST, seen, f"exit {code} after {took:.0f} s: {said[-200:]}")
    code, said = _finish(_start(home, "hit"))
    if code != 0 or not is_same(whole, home / "hit"):
        return Case(RANKS, row, key, LOST, seen, f"again: exit {code}: {said[-200:]}")
    return Case(RANKS, row, key, EQUAL, seen)


assert sys.platform == "linux", "it reads /proc"
