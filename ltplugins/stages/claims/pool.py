# SPDX-License-Identifier: MIT
"""Several cells at once, each in a process forked from this one, until all are done or time is up.

Forking saves each cell the seconds in which torch and Lightning are imported; it needs a parent
that has not touched the GPU. A cell that fails takes no other with it. At the limit, at Ctrl-C and
at SIGTERM those that run get SIGTERM, and go on from their last checkpoints another time.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from ltplugins.runs.lock import try_lock
from ltplugins.stages.claims.cells import Cell
from ltplugins.stages.multirun import reason_of

GRACE_SECONDS = 20.0
_STOPS = (signal.SIGTERM, signal.SIGINT)
_TAKEN = 75  # exit code: another process trains the cell
Work = Callable[[Cell, int], None]


@dataclass
class Outcome:
    """What became of the cells of one call, by their names.

    Attributes:
        done: finished now.
        failed: why.
        stopped: while they ran; they go on another time.
        elsewhere: another call trains them, or what they start from.
        left: never begun.
        is_interrupted: by Ctrl-C or SIGTERM.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    is_interrupted: bool = False


class _Interrupted(BaseException):
    pass


class Pool:
    """Runs cells, ``jobs`` at a time.

    Args:
        work: trains and evaluates a cell, with this process's id.
        jobs: processes at once.
        tell: is called with a line where something ends.
        start: how processes are made; ``spawn`` imports everything anew in each.
    """

    def __init__(
        self,
        work: Work,
        jobs: int,
        tell: Callable[[str], Any] = print,
        start: Literal["fork", "spawn"] = "fork",
    ) -> None:
        self.work, self.jobs, self.tell = work, jobs, tell
        self.context: Any = multiprocessing.get_context(start)
        self.running: dict[BaseProcess, Cell] = {}
        self.outcome = Outcome()

    def run(self, cells: Sequence[Cell], limit: float | None = None) -> Outcome:
        """Run the cells in this order; one that needs another waits for it.

        Args:
            cells: that are not done yet.
            limit: seconds from now; None = until all are done.
        """
        end = None if limit is None else time.monotonic() + limit
        waiting = list(cells)
        before = [signal.signal(s, _interrupt) for s in _STOPS]
        try:
            while (waiting or self.running) and (end is None or time.monotonic() < end):
                self._fill(waiting)
                left = None if end is None else max(0.0, end - time.monotonic())
                self._collect(left)
        except _Interrupted:
            self.outcome.is_interrupted = True
        finally:
            for s, handler in zip(_STOPS, before, strict=True):
                signal.signal(s, handler)
            self._stop()
        self.outcome.left = [cell.name for cell in waiting]
        return self.outcome

    def _fill(self, waiting: list[Cell]) -> None:
        """Start cells that can start; those whose first stage has failed fail with it."""
        busy = {cell.name for cell in self.running.values()} | {cell.name for cell in waiting}
        for cell in list(waiting):
            if cell.of is not None and cell.of.name in self.outcome.failed:
                self._fail(cell, f"it needs {cell.of.name}, which failed.")
                waiting.remove(cell)
            elif cell.of is not None and cell.of.name in self.outcome.elsewhere:
                self._leave(cell)
                waiting.remove(cell)
            elif len(self.running) < self.jobs and not (cell.of and cell.of.name in busy):
                waiting.remove(cell)
                self._start(cell)

    def _start(self, cell: Cell) -> None:
        process = self.context.Process(target=_child, args=(self.work, cell, os.getpid()))
        # A signal now would end a child by the parent's handler, or find one that is in no list.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            process.start()
            self.running[process] = cell
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)

    def _collect(self, seconds: float | None) -> None:
        """Wait for the next process to end, at most so many seconds."""
        if not self.running:
            return
        ended = wait([process.sentinel for process in self.running], seconds)
        for process in [p for p in self.running if p.sentinel in ended]:
            process.join()
            self._settle(process, self.running.pop(process))

    def _settle(self, process: BaseProcess, cell: Cell) -> None:
        code = process.exitcode
        if code == 0:
            self.outcome.done.append(cell.name)
            self.tell(f"done: {cell.name}")
        elif code in (*(128 + s for s in _STOPS), -signal.SIGTERM):
            self.outcome.stopped.append(cell.name)
        elif code == _TAKEN:
            self._leave(cell)
        else:
            said = cell.log.read_text(encoding="utf-8", errors="replace")
            self._fail(cell, reason_of(code or 1, said))

    def _fail(self, cell: Cell, reason: str) -> None:
        self.outcome.failed[cell.name] = reason
        self.tell(f"failed: {cell.name}: {reason}")

    def _leave(self, cell: Cell) -> None:
        self.outcome.elsewhere.append(cell.name)
        self.tell(f"elsewhere: {cell.name}: another call trains it, or what it starts from")

    def _stop(self) -> None:
        """End what runs; a process that does not end by itself is killed."""
        for process in self.running:
            process.terminate()
        end = time.monotonic() + GRACE_SECONDS
        for process, cell in self.running.items():
            process.join(max(0.0, end - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
                self.outcome.stopped.append(cell.name)
            else:
                self._settle(process, cell)
        self.running.clear()


def _interrupt(signum: int, frame: Any) -> None:
    raise _Interrupted


def _child(work: Work, cell: Cell, parent: int) -> None:
    """A process: what it says goes to its log."""
    # Ctrl-C, and whoever ends the whole group, is for the parent, which passes it on once: to a
    # training a second signal means to end without saving.
    os.setpgid(0, 0)
    for number in _STOPS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    cell.log.parent.mkdir(parents=True, exist_ok=True)
    lock = try_lock(cell.lock)  # held until the process ends
    if lock is None:
        raise SystemExit(_TAKEN)
    log = open(cell.log, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 - until it ends
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    sys.stdout = sys.stderr = log
    work(cell, parent)
