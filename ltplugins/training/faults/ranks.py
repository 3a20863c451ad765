# SPDX-License-Identifier: MIT
"""The processes of one run watch each other: when one ends, the run ends, and says which it was.

Lightning's own watch looks every five seconds, kills without a word that is shown, and cannot see
the first rank die. Here the first rank watches those it has started, they watch the first, and an
error that is only the echo of another rank's end (a broken connection) waits for that verdict. A
rank that hangs is known by the others' time limit: they end, and it is killed, even if stopped.
Under torchrun and SLURM the ranks are the launcher's: each says what it saw and ends.
"""

import contextlib
import ctypes
import datetime
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from ltplugins.core.console import make_console
from ltplugins.core.door import as_user_error

# Process id of the process that has started this one and that it must not outlive.
PARENT = "LTPLUGINS_PARENT"
POLL_SECONDS = 0.2
# How long an echo waits for the watch to find out whose end it is of.
VERDICT_SECONDS = 10.0
# Exit code of a rank that has waited for another one as long as it may.
UNANSWERED = 75
# A first rank that is still there after 5 seconds cannot even run its watch.
LAST_RESORT = """
import select, signal, sys
first = int(sys.argv[1])
if not select.select([first], [], [], 5)[0]:
    print(sys.argv[2], file=sys.stderr)
    signal.pidfd_send_signal(first, signal.SIGKILL)
"""
# Exit code, once the ranks have agreed to end.
_purpose: list[int] = []
CONTINUES = "The run has ended; the same command continues it from its last checkpoint."


def set_timeout(trainer: Trainer, seconds: int | None) -> None:
    """Bound how long a rank waits for the others, where the strategy has such a bound."""
    if seconds is not None and hasattr(trainer.strategy, "_timeout"):
        trainer.strategy._timeout = datetime.timedelta(seconds=seconds)


def watch_parent() -> None:
    """End this process when the one that started it ends; nothing if none of ours did."""
    parent = int(os.environ.get(PARENT, 0))
    if not parent:
        return
    if sys.platform == "linux":  # a rank that is stopped could not see it
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGCONT)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        if _purpose:
            end(_purpose[0])
        if os.environ.get("LOCAL_RANK") == "1":  # one of them speaks for all
            say(f"rank 0 has ended. {CONTINUES}")
        end(1)

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()


def watch_ranks(trainer: Trainer) -> None:
    """Put our watch in the place of Lightning's where it will start the ranks of this machine."""
    launcher: Any = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = WatchedLauncher(
            launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
        )
        trainer.strategy._launcher.trainer = trainer


class WatchedLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher, whose processes :class:`RankWatch` looks after."""

    watch: "RankWatch | None" = None
    trainer: Trainer

    def _call_children_scripts(self) -> None:
        os.environ[PARENT] = str(os.getpid())
        super()._call_children_scripts()
        first = self.cluster_environment.node_rank() * self.num_processes
        ranks = {first + i + 1: p for i, p in enumerate(self.procs)}
        self.watch = RankWatch(ranks, end, lambda rank: unanswered(self.trainer, rank))
        self.watch.start()
        self.procs = []  # nothing is left for Lightning's own watch

    def kill(self, signum: Any) -> None:
        """End the other ranks of this machine, on purpose."""
        if self.watch is not None:
            self.watch.kill(signum)


class RankWatch(threading.Thread):
    """Ends this process and the others when one of them ends with an error.

    Args:
        ranks: rank -> its process.
        on_death: called with 1 once the others are gone.
        unanswered: says what a rank has met that ended with :data:`UNANSWERED`.
    """

    def __init__(
        self,
        ranks: dict[int, "subprocess.Popen[Any]"],
        on_death: Callable[[int], None],
        unanswered: Callable[[int], str],
    ) -> None:
        super().__init__(daemon=True, name="watch-ranks")
        self.ranks, self.on_death, self.unanswered = ranks, on_death, unanswered
        self._told = threading.Lock()

    def claim(self) -> bool:
        """Whether the caller is to tell how the run ended: True once, then the watch rests."""
        return self._told.acquire(blocking=False)

    def run(self) -> None:
        """Look until one has failed or all are done."""
        while not self._told.locked():
            codes = {rank: process.poll() for rank, process in self.ranks.items()}
            failed = [(rank, code) for rank, code in codes.items() if code]
            if failed and self.claim():
                others = [(rank, code) for rank, code in failed if code != UNANSWERED]
                names = ", ".join(f"rank {rank} {how_it_ended(code)}" for rank, code in others)
                say(f"{names or self.unanswered(failed[0][0])}. {CONTINUES}")
                self.kill(signal.SIGKILL)
                self.on_death(1)
                return
            if all(code == 0 for code in codes.values()):
                return
            time.sleep(POLL_SECONDS)

    def kill(self, signum: Any) -> None:
        """Send a signal to all; their end is then no news."""
        self.claim()
        for process in self.ranks.values():
            process.send_signal(signum)


class EndTogether(Callback):
    """An error on one of several ranks ends them all, in bounded time."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say what happened and end, before a teardown can wait for a rank that is gone."""
        if trainer.world_size == 1 or isinstance(exception, KeyboardInterrupt | SystemExit):
            return
        launcher: Any = trainer.strategy.launcher
        watch = getattr(launcher, "watch", None)
        rank = trainer.global_rank
        if is_timeout(exception):
            text = f"{unanswered(trainer, rank)}. {CONTINUES}"
            if watch is None and PARENT in os.environ:
                leave_to_parent(int(os.environ[PARENT]), text)
            tell(text, watch)
        elif is_echo(exception):
            time.sleep(VERDICT_SECONDS)  # the watch, torchrun or SLURM ends this process here
            line = str(exception).strip().splitlines()[0][:200]
            say(f"rank {rank} has lost another rank, which ended or did not answer: {line}")
            say(CONTINUES)
        elif as_user_error(exception) is not None:
            launcher_kill(launcher)
            return  # it is shown as any other
        else:
            traceback.print_exception(exception)
            if watch is not None or PARENT not in os.environ:
                name = f"{type(exception).__name__}: {exception}"
                tell(f"rank {rank} ended with {name}. {CONTINUES}", watch)
        launcher_kill(launcher)
        end(1)


def leave_to_parent(parent: int, text: str) -> NoReturn:
    """End this rank; the one that started it hears of that and speaks, or is killed as well."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(parent, signal.SIGCONT)  # stopped, it could not watch
        if sys.platform == "linux":
            # By descriptor: its number may be another process's by then.
            first = os.pidfd_open(parent)
            command = [sys.executable, "-ISc", LAST_RESORT, str(first), f"error: {text}"]
            subprocess.Popen(command, pass_fds=[first], start_new_session=True)
    end(UNANSWERED)


def end_on_purpose(trainer: Trainer, code: int) -> None:
    """All ranks are about to end by themselves: none of it is news, and none waits for ever.

    Args:
        code: with which a rank ends that outlives the one that started it.
    """
    _purpose.append(code)
    launcher: Any = trainer.strategy.launcher
    if isinstance(launcher, WatchedLauncher) and launcher.watch is not None:
        launcher.watch.claim()


def wait_for_ranks(trainer: Trainer) -> None:
    """Return when the ranks that this process has started have ended; they have ten seconds."""
    launcher: Any = trainer.strategy.launcher
    if not isinstance(launcher, WatchedLauncher) or launcher.watch is None:
        return
    deadline = time.monotonic() + VERDICT_SECONDS
    for process in launcher.watch.ranks.values():
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def launcher_kill(launcher: Any) -> None:
    """End the ranks that this process has started, if any."""
    if isinstance(launcher, WatchedLauncher):
        launcher.kill(signal.SIGKILL)


def tell(text: str, watch: RankWatch | None) -> None:
    """Say how the run ended, unless the watch is about to do so and to end this process."""
    if watch is not None and not watch.claim():
        time.sleep(VERDICT_SECONDS)
    say(text)


def unanswered(trainer: Trainer, rank: int) -> str:
    """What a rank has met that has waited in vain."""
    other = f"rank {1 - rank}" if trainer.world_size == 2 else "another rank"
    strategy: Any = trainer.strategy
    return f"{other} did not answer rank {rank} within {strategy._timeout.total_seconds():.0f} s"


def is_timeout(error: BaseException) -> bool:
    """Whether an error says that another rank was waited for as long as is allowed."""
    text = str(error).lower()
    return is_echo(error) and any(mark in text for mark in ("timed out", "timeout"))


def is_echo(error: BaseException) -> bool:
    """Whether an error only says that another rank does not answer."""
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error).lower()
    marks = ["gloo", "nccl", "connection closed by peer", "connection reset", "timed out waiting"]
    marks.append("application timeout")  # gloo, of whom the line often does not say that it is it
    return isinstance(error, RuntimeError) and any(mark in text for mark in marks)


def how_it_ended(code: int) -> str:
    """A process's end in words."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def say(text: str) -> None:
    """One line on standard error, whatever rank this is."""
    escaped = text.replace("[", r"\[")
    console = make_console(stderr=True)
    console.print(f"[bold red]error:[/] {escaped}", highlight=False, soft_wrap=True)


def end(code: int) -> NoReturn:
    """End this process and its loader workers at once: an orderly end could wait for a rank."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
