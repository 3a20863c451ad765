# SPDX-License-Identifier: MIT
"""Commands that wait for one another, several at once, until all are done or time is up."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK = 0.1  # seconds between two looks at what runs


@dataclass(frozen=True)
class Task:
    """A command.

    Attributes:
        name: of its log, ``NAME.log``.
        command: words.
        needs: the name of the task that must be done first; None, or one that is not among the
            tasks, = none.
    """

    name: str
    command: Sequence[str]
    needs: str | None = None


def run_tasks(
    tasks: Sequence[Task],
    logs: Path,
    *,
    jobs: int = 1,
    limit: float | None = None,
    done: Callable[[str], None] = lambda name: None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, str]:
    """Run tasks in their order, ``jobs`` at once; return why some are not done, by name.

    Args:
        logs: folder of the output of each.
        limit: seconds after which those that run get a SIGTERM, with which a training of ltplugins
            writes a checkpoint down, and no other is begun.
        done: called with the name of each that has ended well.
        clock: seconds.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting = {task.name: task for task in tasks}
    running: dict[str, subprocess.Popen[bytes]] = {}
    lost: dict[str, str] = {}
    end = None if limit is None else clock() + limit
    try:
        while waiting or running:
            _begin(waiting, running, lost, logs, jobs)
            for name in [name for name, child in running.items() if child.poll() is not None]:
                code = running.pop(name).returncode
                if code:
                    lost[name] = f"exit code {code}, see {logs / name}.log"
                else:
                    done(name)
            if end is not None and clock() >= end:
                break
            if running:
                time.sleep(_LOOK)
    finally:
        _end(running)
    return {**lost, **dict.fromkeys((*waiting, *running), "time was up")}


def _begin(
    waiting: dict[str, Task],
    running: dict[str, "subprocess.Popen[bytes]"],
    lost: dict[str, str],
    logs: Path,
    jobs: int,
) -> None:
    """Start what can be, and give up what waits for a task that has failed."""
    for name, task in list(waiting.items()):
        if task.needs in lost:
            lost[name] = f"{task.needs} failed"
            del waiting[name]
        elif task.needs not in waiting and task.needs not in running and len(running) < jobs:
            del waiting[name]
            with open(logs / f"{name}.log", "wb") as log:
                running[name] = subprocess.Popen(
                    task.command, stdout=log, stderr=subprocess.STDOUT, env=environment(jobs)
                )


def environment(jobs: int) -> Mapping[str, str]:
    """That of this process, with the cores shared among the jobs where nothing else is said."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}


def _end(running: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
    for child in running.values():
        child.terminate()
    for child in running.values():
        child.wait()
