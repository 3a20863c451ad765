# SPDX-License-Identifier: MIT
"""How long a process that loads images is waited for: one that is stopped would hold a run up.

torch's own ``timeout`` looks at the queue of batches alone: a process that is stopped with a batch
in it is waited for without end, while its memory is asked for, and again where the loader is shut
down. Here whoever gives nothing for so long is killed, and all that waits for it hears of it.
"""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from torch.utils.data import DataLoader, Dataset

SECONDS = 600
_DYING_SECONDS = 5  # from a connection's end to its process's: a moment, on a machine that breathes


class PatientLoader(DataLoader[Any]):
    """torch's, whose processes are given a time for each batch.

    Args:
        dataset, batch_size: torch's, as all other options by their names.
        seconds: that a batch is waited for; 0 = for ever.

    Raises:
        RuntimeError: of the iterator, in torch's words: a process has died or does not answer.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int | None = 1,
        *,
        seconds: int = SECONDS,
        **options: Any,
    ) -> None:
        super().__init__(dataset, batch_size, **options)
        self.seconds = seconds

    def __iter__(self) -> Any:
        """Give the batches; without processes there is nobody to wait for."""
        batches = super().__iter__()
        workers = getattr(batches, "_workers", [])
        return _given(batches, workers, self.seconds) if workers else batches


def _given(batches: Iterator[Any], workers: list[Any], seconds: int) -> Iterator[Any]:
    watch = _Watch(workers, seconds)
    try:
        for number in itertools.count():
            watch.awaited = number
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                watch.awaited = None
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        if _is_broken(error):
            _wait_for_the_dying(workers)
        dead = [str(worker.pid) for worker in workers if not worker.is_alive()]
        if watch.has_lost_patience:
            _shut(batches, workers)
            raise RuntimeError(f"DataLoader timed out after {seconds} seconds") from error
        if not dead:
            raise
        _shut(batches, [])
        if isinstance(error, RuntimeError):  # torch's own words
            raise
        text = f"DataLoader worker (pid {', '.join(dead)}) exited unexpectedly"
        raise RuntimeError(text) from error
    finally:
        watch.is_over.set()


def _is_broken(error: Exception) -> bool:
    """Whether a connection to a process broke, rather than a process told what it met itself."""
    return not isinstance(error, RuntimeError) and "DataLoader worker process" not in str(error)


def _wait_for_the_dying(workers: list[Any]) -> None:
    """A process that dies loses its connections first: for a moment it still counts as alive."""
    with contextlib.suppress(RuntimeError):  # torch's handler tells of one that has just ended
        ending = wait([worker.sentinel for worker in workers], _DYING_SECONDS)
        for worker in workers:
            if worker.sentinel in ending:
                worker.join()


def _shut(batches: Any, killed: list[Any]) -> None:
    """Be done with the processes: torch's handler raises at any child's end while it knows of them.

    Args:
        killed: those whose end is about to be told; it is waited for.
    """
    for worker in killed:
        with contextlib.suppress(RuntimeError):
            worker.join(5)
    with contextlib.suppress(RuntimeError):
        batches._shutdown_workers()


class _Watch:
    """Counts how long a batch is waited for, and kills who is waited for too long.

    It counts its own ticks: a run that was stopped itself, by Ctrl-Z, has not waited meanwhile.

    Attributes:
        awaited: number of the batch that is waited for now.
    """

    def __init__(self, workers: list[Any], seconds: int) -> None:
        self.workers, self.seconds = workers, seconds
        self.awaited: int | None = None
        self.has_lost_patience = False
        self.is_over = threading.Event()
        if seconds > 0:
            threading.Thread(target=self._look, daemon=True, name="watch-loader").start()

    def _look(self) -> None:
        tick = min(1.0, self.seconds / 4)
        number, waited = None, 0.0
        while not self.is_over.wait(tick):
            awaited = self.awaited
            waited = waited + tick if awaited is not None and awaited == number else 0.0
            number = awaited
            if waited >= self.seconds:
                self.has_lost_patience = True
                for worker in self.workers:
                    worker.kill()
                return
