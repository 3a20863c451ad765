# SPDX-License-Identifier: MIT
"""kill -9: at random moments of every method on every engine, and at each step of the disk."""

import dataclasses
import itertools
import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

from scripts.soak.children import Ended
from scripts.soak.ledger import LOST, Case, Ledger
from scripts.soak.tasks import (
    Bench,
    Task,
    balancing,
    evaluating,
    finetuning,
    pretraining,
)

KILLS, MOMENTS = "kills", "moments"
# What of the disk's steps is a moment: before each of these a process dies.
STEPS = ("fsync", "replace", "rename", "link")
_MOST_MOMENTS = 400
_TRIES = 5


def random_kills(
    bench: Bench, ledger: Ledger, pairs: list[tuple[str, str]], count: int, seed: int
) -> Iterator[Case]:
    """Runs killed one to three times each, ``count`` kills in all; then the command once more.

    Args:
        pairs: methods and engines.
    """
    number, killed = 0, 0
    for method, engine in itertools.cycle(in_turn(pairs, random.Random(seed))):
        draw = random.Random(f"{seed} {number}")
        row, key = f"`kill -9`, engine `{engine}`", f"{seed}-{number} {method}"
        times, number = draw.randint(1, 3), number + 1
        killed += times
        if not ledger.has(KILLS, row, key):
            task = pretraining(bench, method, engine)
            bench.hit(task)
            if all(hit_at(bench, task, draw, signal.SIGKILL) for _ in range(times)):
                yield dataclasses.replace(bench.judge(task, KILLS, row, key), faults=times)
            else:
                yield Case(KILLS, row, key, LOST, what="it was never met in its work")
        if killed >= count:
            return


def in_turn(pairs: list[tuple[str, str]], draw: random.Random) -> list[tuple[str, str]]:
    """The same in another order: every method once, each on another engine than the one before."""
    engines: dict[str, list[str]] = {}
    for method, engine in pairs:
        engines.setdefault(method, []).append(engine)
    methods = draw.sample(sorted(engines), len(engines))
    found = []
    for turn in range(max(map(len, engines.values()))):
        for place, method in enumerate(methods):
            own = engines[method]
            if turn < len(own):
                found.append((method, own[(place + turn) % len(own)]))
    return found


def hit_at(
    bench: Bench, task: Task, draw: random.Random, number: int, before: Any = None
) -> Ended | None:
    """Start a task, or go on with it, and send it a signal at a random moment of its work.

    Returns:
        How it ended; None if it was always done before.
    """
    seconds = bench.seconds(task)
    for _ in range(_TRIES):
        child = bench.start(task, before=before)
        met = child.reaches(draw.uniform(0, 0.95) * seconds)
        if met:
            child.send(number)
        ended = child.wait()
        if met:
            return ended
        bench.hit(task)
    return None


def each_moment(
    bench: Bench, ledger: Ledger, tasks: dict[str, Callable[[Bench], Task]], stride: int = 1
) -> Iterator[Case]:
    """A process that dies before its first, its second, ... step of the disk.

    Args:
        stride: every so many of them.
    """
    for name, build in tasks.items():
        row = f"`kill -9` before each step of the disk, {name}"
        for moment in range(1, _MOST_MOMENTS, stride):
            if ledger.has(MOMENTS, row, str(moment)):
                continue
            task = build(bench)
            bench.whole(task)
            bench.hit(task)
            ended = bench.start(task, before=lambda n=moment: die_at(n)).wait()
            if ended.code == 0:
                break
            case = bench.judge(task, MOMENTS, row, str(moment))
            if ended.code != -signal.SIGKILL:
                case = Case(MOMENTS, row, str(moment), LOST, what=f"it did not die: {ended.code}")
            yield case


STAGES: dict[str, Callable[[Bench], Task]] = {
    "pretrain": lambda bench: pretraining(bench, "simclr", name="pretrain", max_epochs=2),
    "balance": balancing,
    "finetune": finetuning,
    "evaluate": evaluating,
}


def die_at(moment: int) -> None:
    """Let this process die before its step of that number, whoever takes it."""
    left = [moment]

    def watched(step: Callable[..., Any]) -> Callable[..., Any]:
        def take(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*args, **kwargs)

        return take

    for name in STEPS:
        setattr(os, name, watched(getattr(os, name)))
