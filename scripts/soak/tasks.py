# SPDX-License-Identifier: MIT
"""The commands that faults are put into: tiny trainings of every method, and each later stage."""

import gc
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ltplugins.runs.checkpoint import read_checkpoint
from scripts.soak.children import Child, Ended, run
from scripts.soak.ledger import EQUAL, LOST, REFUSED, Case
from tests.kit.cases import cases_of
from tests.kit.tiny import calm_config

ENGINES = ("batched", "workers", "dali")
_KEYS = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")


@dataclass(frozen=True)
class Task:
    """A command that writes into a folder.

    Attributes:
        name: of its folder.
        work: the command, given the folder.
        is_same: whether two of its folders have come to the same end.
    """

    name: str
    work: Callable[[Path], Any]
    is_same: Callable[[Path, Path], bool]


class Bench:
    """Where tasks are done, once without a fault and then with them.

    Args:
        folder: of all that is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)  # a fork takes along no threads
        gc.collect()
        gc.freeze()  # what is never collected stays shared with the forks

    def whole(self, task: Task) -> Path:
        """The task's folder that nothing has happened to."""
        path = self.folder / task.name / "whole"
        done = path.with_suffix(".json")
        if not done.exists():
            shutil.rmtree(path, ignore_errors=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            ended = run(lambda: _timed(task, path, done), path.with_suffix(".log"))
            assert ended.code == 0, (
                f"{task.name} does not end without a fault: {ended.said[-2000:]}"
            )
        return path

    def seconds(self, task: Task) -> float:
        """Of the processor that the whole task takes."""
        return float(json.loads(self.whole(task).with_suffix(".json").read_text()))

    def start(self, task: Task, name: str = "hit", **how: Any) -> Child:
        """Start the task's command into another folder."""
        folder = self.folder / task.name
        return Child(lambda: task.work(folder / name), folder / f"{name}.log", **how)

    def hit(self, task: Task, name: str = "hit") -> Path:
        """The folder that a fault is put into; it is not there yet."""
        path = self.folder / task.name / name
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(exist_ok=True)
        return path

    def judge(
        self, task: Task, part: str, row: str, key: str, may_refuse: bool = False, before: str = ""
    ) -> Case:
        """Give the command again, and compare its end with the whole one's.

        Args:
            may_refuse: one line and exit code 2 is an answer.
            before: what the faulty command said.
        """
        whole, path = self.whole(task), self.folder / task.name / "hit"
        ended = self.start(task).wait()
        verdict, what = self.end_of(task, whole, path, ended, may_refuse)
        seen = before or self.tell(ended)
        return Case(part, row, key, verdict, seen, what)

    def end_of(
        self, task: Task, whole: Path, path: Path, ended: Ended, may_refuse: bool
    ) -> tuple[str, str]:
        """Verdict, and what has happened where it is a loss."""
        if ended.is_refusal and may_refuse:
            return REFUSED, ""
        if ended.code != 0:
            return LOST, f"exit {ended.code}: {self.tell(ended) or ended.said[-200:]}"
        if "Traceback" in ended.said:
            return LOST, "a traceback"
        return (EQUAL, "") if task.is_same(whole, path) else (LOST, "it ends otherwise")

    def tell(self, ended: Ended) -> str:
        """What a user sees, the folders' names left out."""
        lines = [line.replace(f"{self.folder}/", "") for line in ended.seen]
        return "\n".join(lines[:3])


def _timed(task: Task, path: Path, done: Path) -> None:
    task.work(path)
    done.write_text(json.dumps(time.process_time()))


def trainings(methods: Sequence[str], engines: Sequence[str]) -> list[tuple[str, str]]:
    """Each method on each engine that it trains on."""
    pairs = [(method, engine) for engine in engines for method in methods]
    return [(m, e) for m, e in pairs if all(e in case.run.engines for case in cases_of(m))]


def pretraining(
    bench: Bench, method: str, engine: str = "batched", name: str = "", **changes: Any
) -> Task:
    """A pretraining on generated images; ``a__b=c`` sets ``a.b``."""
    from ltplugins.stages.pretrain import pretrain

    home = bench.folder / "data" / method
    home.mkdir(parents=True, exist_ok=True)
    more = {"dali__device": "cpu"} if engine == "dali" else {}
    workers = 1 if engine == "workers" else 0
    where = {"data__engine": engine, "data__num_workers": workers}
    cfg = calm_config(home, method, log_every_n_steps=1, **where, **more, **changes)
    name = name or f"{method}-{engine}"
    return Task(name, lambda out: pretrain({**cfg, "output_dir": str(out)}), is_same)


def balancing(bench: Bench) -> Task:
    """A classifier balanced anew."""
    from ltplugins.stages.balance import balance

    first = bench.whole(pretraining(bench, "iccl"))
    return Task("balance", _stage("balance", balance, first, epochs=2, batch_size=8), is_same)


def finetuning(bench: Bench) -> Task:
    """A classifier on a run's backbone."""
    from ltplugins.stages.finetune import finetune

    first = bench.whole(pretraining(bench, "simclr"))
    short = {"epochs": 1, "probe_epochs": 1, "batch_size": 8, "validation": 0.2}

    def ends_alike(one: Path, other: Path) -> bool:
        return is_same(one, other) and same_results(one, other)

    return Task("finetune", _stage("finetune", finetune, first, **short), ends_alike)


def evaluating(bench: Bench) -> Task:
    """A run's evaluation, into a folder apart from it."""
    from ltplugins.stages.evaluate import evaluate

    first = bench.whole(pretraining(bench, "simclr"))
    words = {"eval.knn.k": 3, "eval.linear.shots": [4], "device": "cpu"}
    return Task("evaluate", _stage("evaluate", evaluate, first, "out", **words), same_results)


def _stage(
    name: str, main: Callable[[Any], Any], first: Path, place: str = "output_dir", **values: Any
) -> Callable[[Path], Any]:
    """A later stage's command, given the folder that it writes into."""
    from omegaconf import OmegaConf

    from ltplugins.stages.compose import compose_packaged

    cfg = compose_packaged(name, [f"run={first}"])
    OmegaConf.set_struct(cfg, False)
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True)

    def work(out: Path) -> Any:
        return main(OmegaConf.merge(cfg, {place: str(out)}))

    return work


def at_batch(epoch: int, batch: int, act: Callable[[], Any]) -> None:
    """Let something happen in this process before a batch of its training, counted from 0."""
    from ltplugins.training.seeds import EpochSeed

    def start(self: Any, trainer: Any, module: Any, content: Any, number: int) -> None:
        if (trainer.current_epoch, number) == (epoch, batch):
            act()

    EpochSeed.on_train_batch_start = start  # type: ignore[method-assign]


def is_same(one: Path, other: Path) -> bool:
    """Whether two trainings have ended alike: weights, optimiser and schedule, bit by bit."""
    a, b = (read_checkpoint(path / "checkpoints/last.ckpt") for path in (one, other))
    return all(_equal(a[key], b[key]) for key in _KEYS)


def same_results(one: Path, other: Path) -> bool:
    """Whether two evaluations say the same numbers."""
    found = [json.loads((path / "results.json").read_text()) for path in (one, other)]
    for results in found:
        results.pop("evaluated")
    return bool(found[0] == found[1])


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
