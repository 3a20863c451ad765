# SPDX-License-Identifier: MIT
"""A process that loads images and dies, is stopped or hangs ends the loading with one line."""

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from ltplugins.core.door import as_user_error
from ltplugins.data import patience
from ltplugins.data.patience import PatientLoader, _given, _Watch

BAD = 3  # the batch that is not given


class Numbers(Dataset[torch.Tensor]):
    """0, 1, 2, ... with something that happens in the process that is asked for one."""

    def __init__(self, happens: Callable[[], Any]) -> None:
        self.happens = happens

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == BAD:
            self.happens()
        return torch.tensor([index])


def nothing() -> None:
    """As it should be."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hang() -> None:
    time.sleep(1e6)


@pytest.mark.parametrize(
    ("happens", "seconds", "line"),
    [
        (die, 600, "has died"),
        (stop, 1, "does not answer (DataLoader timed out after 1 seconds)"),
        (hang, 1, "does not answer (DataLoader timed out after 1 seconds)"),
    ],
)
def test_one_line(happens: Callable[[], Any], seconds: int, line: str) -> None:
    loader = PatientLoader(Numbers(happens), 1, num_workers=1, seconds=seconds)
    given = []
    with pytest.raises(RuntimeError) as error:
        given += [int(batch) for batch in loader]
    subprocess.run(["true"])  # torch has forgotten the dead one: another's end is no news
    told = as_user_error(error.value)
    assert told is not None
    assert line in str(told)
    assert BAD not in given


def test_a_batch_that_lies_ready_in_a_stopped_process() -> None:
    """torch would wait for its memory without end."""
    loader = PatientLoader(Numbers(nothing), 1, num_workers=1, seconds=1, prefetch_factor=6)
    batches = iter(loader)
    assert int(next(batches)) == 0
    inner, (worker,) = (batches.gi_frame.f_locals[name] for name in ("batches", "workers"))
    while inner._worker_result_queue.empty():
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(RuntimeError, match="timed out after 1 seconds"):
        list(batches)
    assert not worker.is_alive()
    subprocess.run(["true"])


class Worker:
    """A process that counts as alive until it is waited for, if its end has begun."""

    pid = 7

    def __init__(self, is_ending: bool) -> None:
        self.sentinel, self.its_end = multiprocessing.Pipe(duplex=False)
        self.is_ending, self.is_reaped = is_ending, False
        if is_ending:
            self.its_end.close()  # as its sockets are, a moment before the process is gone

    def is_alive(self) -> bool:
        return not self.is_reaped

    def join(self) -> None:
        assert self.is_ending, "would wait for ever"
        self.is_reaped = True


class Broken:
    """An iterator of a loader, whose batch cannot be fetched from its process."""

    def __init__(self, error: Exception) -> None:
        self.error, self.shut = error, 0

    def __next__(self) -> None:
        raise self.error

    def _shutdown_workers(self) -> None:
        self.shut += 1


@pytest.mark.parametrize("kind", [ConnectionRefusedError, ConnectionResetError, EOFError])
def test_a_batch_of_a_process_that_is_gone(kind: type[Exception]) -> None:
    broken, workers = Broken(kind("of its socket")), [Worker(False), Worker(True)]
    with pytest.raises(RuntimeError, match=r"worker \(pid 7\) exited unexpectedly") as error:
        next(_given(broken, workers, 0))  # type: ignore[arg-type]
    assert "has died" in str(as_user_error(error.value))
    assert broken.shut == 1


def test_an_error_of_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is passed on as it is; at once, where a process tells of it and lives."""
    monkeypatch.setattr(patience, "_DYING_SECONDS", 0)
    broken = Broken(ConnectionRefusedError("of a disk far away"))
    with pytest.raises(ConnectionRefusedError):
        next(_given(broken, [Worker(False)], 0))  # type: ignore[arg-type]
    monkeypatch.setattr(patience, "_wait_for_the_dying", None)
    broken.error = FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.")
    with pytest.raises(FileNotFoundError):
        next(_given(broken, [Worker(False)], 0))  # type: ignore[arg-type]
    assert broken.shut == 0


def test_all_is_given_and_the_watch_ends() -> None:
    for workers, seconds in ((0, 600), (1, 600), (1, 0)):
        loader = PatientLoader(Numbers(nothing), 2, num_workers=workers, seconds=seconds)
        assert torch.cat(list(loader)).flatten().tolist() == list(range(6))


def test_time_of_our_own_does_not_count() -> None:
    """Between two batches, however long; and each batch has the whole time."""
    killed = []

    class Worker:
        def kill(self) -> None:
            killed.append(True)

    class Ticks:
        """Of a clock that is turned by hand."""

        def __init__(self, awaited: list[int | None]) -> None:
            self.left = list(awaited)

        def wait(self, tick: float) -> bool:
            if not self.left:
                return True
            watch.awaited = self.left.pop(0)
            return False

    watch = _Watch([Worker()], 0)
    watch.seconds = 2  # ticks of half a second
    for awaited, ends in (
        ([None] * 20, False),
        ([0, 0, 0, 0, 1, 1, 1, 1, None, 1, 1, 1, 1], False),
        ([7, 7, 7, 7, 7], True),
    ):
        watch.is_over = Ticks(awaited)  # type: ignore[assignment]
        watch._look()
        assert bool(killed) == ends
