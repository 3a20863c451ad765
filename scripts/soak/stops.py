# SPDX-License-Identifier: MIT
"""SIGTERM, Ctrl-C and SLURM's SIGUSR1, at random moments of every stage."""

import os
import random
import signal
from collections.abc import Iterator

from scripts.soak.children import Ended
from scripts.soak.kills import STAGES, hit_at
from scripts.soak.ledger import LOST, Case, Ledger
from scripts.soak.tasks import Bench
from tests.kit.launch import free_port

SIGNALS = "signals"
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
