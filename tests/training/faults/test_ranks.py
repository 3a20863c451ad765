# SPDX-License-Identifier: MIT
"""The processes of one run watch each other: what the watch says, and whose end it takes for one.

Whole runs of two processes are in ``test_rank_runs.py``.
"""

import multiprocessing
import signal
import subprocess

import pytest
import torch

from ltplugins.training.faults import ranks
from tests.kit.launch import HANG_SECONDS


def test_a_first_rank_that_cannot_watch_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    """What its started ranks leave behind does it; one that ends by itself is let be."""
    for command, code in (["sleep", "100"], -signal.SIGKILL), (["true"], 0):
        stuck = subprocess.Popen(command)
        ending = multiprocessing.get_context("fork").Process(
            target=ranks.leave_to_parent, args=(stuck.pid, "stuck")
        )
        ending.start()
        assert stuck.wait(HANG_SECONDS) == code
        ending.join()
        assert ending.exitcode == ranks.UNANSWERED
    assert capfd.readouterr().err == "error: stuck\n"


class Process:
    """A process that ends when it is told to."""

    def __init__(self, code: int | None = None) -> None:
        self.code, self.signals = code, []

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, signum: int) -> None:
        self.signals.append(signum)


def test_the_watch_names_the_rank_and_ends_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    ended: list[int] = []
    others = {1: Process(), 2: Process(3), 3: Process(-11)}
    ranks.RankWatch(others, ended.append, str).run()  # type: ignore[arg-type]
    assert ended == [1]
    assert others[1].signals == [signal.SIGKILL]
    said = capsys.readouterr().err
    assert "rank 2 ended with exit code 3, rank 3 was ended by SIGSEGV." in said
    ranks.RankWatch({1: Process(0)}, ended.append, str).run()  # type: ignore[arg-type]
    hung = {1: Process(ranks.UNANSWERED), 2: Process()}
    ranks.RankWatch(hung, ended.append, "rank {} waited".format).run()  # type: ignore[arg-type]
    assert ended == [1, 1]
    assert "rank 1 waited. The run has ended" in capsys.readouterr().err
    quiet = ranks.RankWatch({1: Process(-9)}, ended.append, str)  # type: ignore[arg-type]
    quiet.kill(signal.SIGKILL)  # on purpose: no news
    quiet.run()
    assert ended == [1, 1]


@pytest.mark.parametrize(
    ("error", "echo"),
    [
        (torch.distributed.DistBackendError("x"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer"), True),
        (RuntimeError("NCCL communicator was aborted"), True),
        (RuntimeError("shapes do not fit"), False),
        (KeyError("gloo"), False),
        (RuntimeError("Application timeout caused pair closure"), True),
        (RuntimeError("DataLoader timed out after 5 seconds"), False),
    ],
)
def test_echoes_of_another_ranks_end(error: Exception, echo: bool) -> None:
    assert ranks.is_echo(error) == echo
    assert ranks.is_timeout(error) == (echo and "timeout" in str(error))
