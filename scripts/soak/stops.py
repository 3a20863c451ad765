# SPDX-License-Identifier: MIT
"""SIGTERM, Ctrl-C and SLURM's SIGUSR1, in the training of every stage and at random moments."""

import os
import random
import signal
from collections.abc import Iterator

from scripts.soak.children import Ended
from scripts.soak.kills import STAGES, hit_at
from scripts.soak.ledger import LOST, Case, Ledger
from scripts.soak.tasks import Bench, Task, at_batch
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
_WITHIN = "in the training"


def each_signal(bench: Bench, ledger: Ledger, times: int, seed: int) -> Iterator[Case]:
    """Each signal within the training of each stage, and at random moments of it.

    SIGUSR1 comes under SLURM's variables.
    """
    for name, build in STAGES.items():
        for number in NUMBERS:
            row = f"{signal.Signals(number).name}, {name}"
            within = [] if name == "evaluate" else [_WITHIN]
            for key in [*within, *map(str, range(times))]:
                if not ledger.has(SIGNALS, row, key):
                    yield _case(bench, build(bench), number, row, key, seed)


def _case(bench: Bench, task: Task, number: int, row: str, key: str, seed: int) -> Case:
    def prepare() -> None:
        if number == signal.SIGUSR1:
            os.environ.update(_SLURM, MASTER_PORT=str(free_port()))
        if key == _WITHIN:
            at_batch(1, 1, lambda: os.kill(os.getpid(), number))

    bench.whole(task)
    bench.hit(task)
    ended: Ended | None
    if key == _WITHIN:
        ended = bench.start(task, before=prepare).wait()
    else:
        draw = random.Random(f"{seed} {row} {key}")
        ended = hit_at(bench, task, draw, number, before=prepare)
    wrong = _wrong(ended, number, key == _WITHIN)
    if wrong or ended is None:
        return Case(SIGNALS, row, key, LOST, what=wrong)
    return bench.judge(task, SIGNALS, row, key, before=bench.tell(ended))


def _wrong(ended: Ended | None, number: int, is_within: bool) -> str:
    """What is not as it should be of a command that a signal has ended; empty if nothing.

    Before it trains, a signal does to it what it does to any program; what is done may end as it
    would have.
    """
    if ended is None:
        return "it was never met in its work"
    if not is_within and ended.code in (-number, 0):
        return ""
    if ended.code != 128 + number:
        return f"exit {ended.code}: {ended.said[-200:]}"
    return "" if _GOES_ON in ended.said else f"no line says how to go on: {ended.said[-200:]}"
