# SPDX-License-Identifier: MIT
"""``make soak``: faults put into tiny runs, and what became of them, as ``docs/faults.md``.

Each case is a process of its own, forked from this one, so that a case costs what it trains. A run
that was killed, stopped or damaged gets the same command again until it is finished, and is then
compared with the run that nothing happened to: weights, buffers, optimiser and schedule bit by bit.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ltplugins.core import files
from ltplugins.core.door import as_user_error
from ltplugins.runs.checkpoint import read_checkpoint
from ltplugins.stages.pretrain import pretrain
from tests.kit.cases import run_names
from tests.kit.tiny import calm_config

PAGE = Path(__file__).resolve().parents[2] / "docs/faults.md"
HEAD = """# Faults

What was put into tiny runs, how often, and what became of them; written by `make soak`, which
`tests/training/test_soak.py` runs in short. *Equal*: given the same command until it was finished,
the run ended as the one that nothing happened to, bit by bit. *Refused*: a line and exit code 2.
*Lost*: anything else.

"""


@dataclass
class Row:
    """One kind of fault, and its cases."""

    name: str
    equal: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)

    def line(self) -> str:
        """As a row of the table."""
        total = self.equal + self.refused + len(self.lost)
        lost = f"{len(self.lost)}: {'; '.join(self.lost[:3])}" if self.lost else "0"
        return f"| {self.name} | {total} | {self.equal} | {self.refused} | {lost} |"


class Soak:
    """Runs under faults, in a folder of their own."""

    def __init__(self, folder: Path, methods: list[str], seed: int) -> None:
        self.folder, self.methods, self.random = folder, methods, random.Random(seed)
        self.seconds: dict[str, float] = {}

    def config(self, method: str, name: str) -> Any:
        """The config of a run; each method has data of its own."""
        home = self.folder / method
        home.mkdir(exist_ok=True)
        return calm_config(home, method, output_dir=str(home / name), log_every_n_steps=1)

    def child(self, method: str, name: str, before: Callable[[], Any] = lambda: None) -> int:
        """Start a run in a process of its own; its exit code is the command's."""
        pid = os.fork()
        if pid:
            return pid
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        code = 1
        try:
            before()
            pretrain(self.config(method, name))
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException as error:
            code = 2 if as_user_error(error) else 1
        finally:
            os._exit(code)

    def whole(self, method: str) -> Path:
        """The run that nothing happens to."""
        path = self.folder / method / "whole"
        if method not in self.seconds:
            start = time.monotonic()
            assert wait(self.child(method, "whole")) == 0, f"{method} does not train: see log"
            self.seconds[method] = time.monotonic() - start
        return path

    def judge(self, row: Row, method: str, name: str, what: str) -> None:
        """Give the command again, and compare."""
        code = wait(self.child(method, name))
        ends = self.folder / method / name
        if code == 2:
            row.refused += 1
        elif code == 0 and is_same(self.whole(method), ends):
            row.equal += 1
        else:
            row.lost.append(f"{method}, {what}: exit {code}")
        shutil.rmtree(ends, ignore_errors=True)

    def kills(self, count: int, number: int = signal.SIGKILL) -> Row:
        """A signal at any moment of a run, up to three times."""
        row = Row(f"{signal.Signals(number).name} at a random moment")
        for case in range(count):
            method = self.methods[case % len(self.methods)]
            self.whole(method)
            for _ in range(self.random.randint(1, 3)):
                pid = self.child(method, "hit")
                time.sleep(self.random.uniform(0, 1.2) * self.seconds[method])
                os.kill(pid, number)
                wait(pid)
            self.judge(row, method, "hit", f"case {case}")
        return row

    def moments(self, most: int) -> Row:
        """A kill at every flush and every renaming of a run."""
        row = Row("SIGKILL at each fsync and rename")
        method = self.methods[0]
        for moment in range(1, most + 1):

            def before(moment: int = moment) -> None:
                files.os = _Killing(moment)  # type: ignore[assignment]

            if wait(self.child(method, "hit", before)) == 0:
                break
            self.judge(row, method, "hit", f"moment {moment}")
        return row

    def damages(self) -> list[Row]:
        """Each file of an interrupted run, damaged in each way."""
        method, rows = self.methods[0], []
        source = self.folder / method / "killed"
        pid = self.child(method, "killed", _stop_in_last_epoch)
        wait(pid)
        for name in ("checkpoints/last.ckpt", "checkpoints/previous.ckpt", "run.json",
                     "config.yaml", "metrics.csv", "checkpoints/args.json"):  # fmt: skip
            row = Row(f"`{name}` damaged")
            for damage in (_flip, _cut, _empty, Path.unlink):
                hit = self.folder / method / "hit"
                shutil.copytree(source, hit)
                damage(hit / name)
                self.judge(row, method, "hit", damage.__name__.strip("_"))
            rows.append(row)
        return rows


class _Killing:
    """``os`` in which the process dies at a given flush or renaming."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def __getattr__(self, name: str) -> Any:
        if name in ("fsync", "replace"):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return getattr(os, name)


def _stop_in_last_epoch() -> None:
    from ltplugins.training.seeds import EpochSeed

    def die(self: Any, trainer: Any, *args: Any) -> None:
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    EpochSeed.on_train_batch_start = die  # type: ignore[method-assign]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(byte ^ 255 for byte in data[middle : middle + 64])
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def wait(pid: int) -> int:
    """Exit code of a process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def is_same(one: Path, other: Path) -> bool:
    """Whether two runs have ended alike, bit by bit."""
    a, b = (read_checkpoint(path / "checkpoints/last.ckpt") for path in (one, other))
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    return all(_equal(a[key], b[key]) for key in keys)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def soak(folder: Path, methods: list[str], count: int, moments: int, seed: int) -> list[Row]:
    """All faults, each kind a row."""
    torch.set_num_threads(1)
    runs = Soak(folder, methods, seed)
    rows = [runs.kills(count), runs.kills(count // 2, signal.SIGTERM)]
    rows += [runs.kills(count // 2, signal.SIGINT), runs.moments(moments), *runs.damages()]
    return rows


def main() -> None:
    """Run it and write the page; exit code 1 where anything is lost."""
    parser = argparse.ArgumentParser(description="faults put into runs")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--methods", nargs="*", default=run_names())
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = soak(Path(folder), asked.methods, asked.kills, asked.moments, asked.seed)
    table = ["| injected | cases | equal | refused | lost |", "|---|---|---|---|---|"]
    table += [row.line() for row in rows]
    files.write_text(PAGE, HEAD + "\n".join(table) + f"\n\nMethods: {', '.join(asked.methods)}.\n")
    sys.exit(any(row.lost for row in rows))


if __name__ == "__main__":
    main()
