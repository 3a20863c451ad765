# SPDX-License-Identifier: MIT
"""Two ranks, of which one, or the whole group, gets a signal while they train."""

import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from scripts.soak.children import LIMIT
from scripts.soak.ledger import EQUAL, LOST, Case, Ledger
from scripts.soak.tasks import Bench, is_same
from tests.kit.forked import Popen
from tests.kit.launch import CLI, members, start
from tests.kit.tiny import tiny_config

RANKS = "ranks"
_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
_WHO = {"group": "the group", "0": "rank 0", "1": "rank 1"}
_EPOCHS = 20  # they are met after the second
_ORPHANS = 30.0  # seconds, for what is killed to be gone


def ranks(bench: Bench, ledger: Ledger, times: int) -> Iterator[Case]:
    """Each signal to each of them; the same command then ends as the unbroken run."""
    home = bench.folder / "ranks"
    for number in _NUMBERS:
        for who, name in _WHO.items():
            row = f"{signal.Signals(number).name} to {name} of two ranks"
            for case in map(str, range(times)):
                if not ledger.has(RANKS, row, case):
                    yield _case(home, _whole(home), number, who, row, case)


def _whole(home: Path) -> Path:
    path = home / "whole"
    if not (path / "checkpoints/last.ckpt").exists():
        home.mkdir(parents=True, exist_ok=True)
        changes = {"devices": 2, "strategy": "ddp", "rank_timeout": 120, "log_every_n_steps": 1}
        batch = {"optimizer__batch_size": 4}
        cfg = tiny_config(home, "simclr", max_epochs=_EPOCHS, **changes, **batch)
        OmegaConf.save(cfg, home / "tiny.yaml")
        code, said = _finish(_start(home, "whole"))
        assert code == 0, said[-2000:]
    return path


def _case(home: Path, whole: Path, number: int, who: str, row: str, key: str) -> Case:
    hit = home / "hit"
    shutil.rmtree(hit, ignore_errors=True)
    process = _start(home, "hit")
    has_begun = _begins(process, hit / "checkpoints/previous.ckpt")
    if has_begun:
        _send(process, number, who)
    began = time.monotonic()
    code, said = _finish(process)
    took = time.monotonic() - began
    if not has_begun:
        return Case(RANKS, row, key, LOST, what=f"it does not begin: {said[-200:]}")
    lines = [x for x in said.splitlines() if x.startswith(("error:", "WARNING", "stopped"))]
    seen = "\n".join(lines[:2]).replace(f"{home}/", "")
    if code not in ((1, -number) if number == signal.SIGKILL else (128 + number,)):
        return Case(RANKS, row, key, LOST, seen, f"exit {code} after {took:.0f} s: {said[-200:]}")
    code, said = _finish(_start(home, "hit"))
    if code != 0 or not is_same(whole, hit):
        return Case(RANKS, row, key, LOST, seen, f"again: exit {code}: {said[-200:]}")
    return Case(RANKS, row, key, EQUAL, seen)


def _start(home: Path, name: str) -> Any:
    own = functools.partial(Popen, start_new_session=True)
    return start(CLI, home, name, popen=own)  # type: ignore[arg-type]


def _begins(process: Any, sign: Path) -> bool:
    end = time.monotonic() + LIMIT
    while not sign.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    return sign.exists() and process.poll() is None


def _send(process: Any, number: int, who: str) -> None:
    if who == "group":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if who == "0" else members(process, rank=1)[0], number)


def _finish(process: Any) -> tuple[int | None, str]:
    """Exit code and words; None where it, or a process of its, does not end."""
    try:
        said = process.communicate(timeout=LIMIT)[1]
        has_ended = True
    except subprocess.TimeoutExpired:
        said, has_ended = "", False
    end = time.monotonic() + _ORPHANS
    while has_ended and members(process) and time.monotonic() < end:
        time.sleep(0.1)
    left = members(process)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    if not has_ended:
        said = process.communicate()[1]
    return (process.returncode if has_ended and not left else None), said
