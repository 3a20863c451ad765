# SPDX-License-Identifier: MIT
"""Commands as processes forked from this one: a case then costs what it trains, not its imports.

Every wait has a limit; what does not end by then is killed and is a loss.
"""

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ltplugins.core.door import guarded
from ltplugins.stages.logs import set_up_logging

LIMIT = 300.0  # seconds of one command
_POLL = 0.005
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code, -N of a signal, None where it was killed at the limit.
        said: all that it said.
    """

    code: int | None
    said: str

    @property
    def is_refusal(self) -> bool:
        """Whether it ended with one line for the user."""
        lines = [line for line in self.said.splitlines() if line.startswith("error:")]
        return self.code == 2 and len(lines) == 1 and "Traceback" not in self.said

    @property
    def seen(self) -> list[str]:
        """The lines that a user would look at: errors, warnings, how it stopped."""
        marks = ("error:", "WARNING", "stopped")
        return [line for line in self.said.splitlines() if line.startswith(marks)]


class Child:
    """A command in a process, and in a group, of its own.

    Args:
        work: the command.
        log: file of all that it says.
        before: done first, in the new process: puts the fault into it.
    """

    def __init__(
        self, work: Callable[[], Any], log: Path, before: Callable[[], Any] | None = None
    ) -> None:
        self.log = log
        log.write_bytes(b"")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(work, log, before)
        self._handle = os.pidfd_open(self.pid)

    def reaches(self, seconds: float) -> bool:
        """Wait until it has worked for so many seconds of its own time; False: it has ended.

        The time of the processor, not of the clock, so that a busy machine changes no moment.
        """
        end = time.monotonic() + LIMIT
        while not self._has_ended(_POLL) and time.monotonic() < end:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            if (int(fields[11]) + int(fields[12])) / _TICKS >= seconds:
                return True
        return False

    def send(self, number: int) -> None:
        """A signal to it alone."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = LIMIT) -> Ended:
        """How it ends; nothing of its group lives on."""
        code: int | None = None
        if self._has_ended(seconds):
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self._sweep()
        else:
            self._sweep()
            os.waitpid(self.pid, 0)
        os.close(self._handle)
        return Ended(code, self.log.read_text(encoding="utf-8", errors="replace"))

    def _has_ended(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _sweep(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _become(work: Callable[[], Any], log: Path, before: Callable[[], Any] | None) -> NoReturn:
    """Be the command, as the command line's mains are it, and end with its exit code."""
    code: Any = 1
    try:
        os.setpgid(0, 0)
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        if before is not None:
            before()
        set_up_logging()
        guarded(work)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(
    work: Callable[[], Any],
    log: Path,
    before: Callable[[], Any] | None = None,
    limit: float = LIMIT,
) -> Ended:
    """A command from its beginning to its end."""
    return Child(work, log, before).wait(limit)
