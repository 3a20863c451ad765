# SPDX-License-Identifier: MIT
"""Each file of a run's folder damaged in each way, under each command that reads it."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.soak.children import run
from scripts.soak.ledger import EQUAL, LOST, REFUSED, Case, Ledger
from scripts.soak.tasks import Bench, Task, at_batch, pretraining, same_results

DAMAGE = "damage"
_CHECKPOINTS = ("last.ckpt", "previous.ckpt", "stopped.ckpt", "args.json")
TRAINED = ("run.json", "config.yaml", "metrics.csv", *(f"checkpoints/{c}" for c in _CHECKPOINTS))
EVALUATED = ("run.json", "config.yaml", "checkpoints/last.ckpt", "results.json", "features")
REPORTED = ("run.json", "config.yaml", "metrics.csv", "results.json", "features")


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """64 bytes of its middle, each bit the other one."""
    data = bytearray(path.read_bytes())
    middle = max(0, len(data) // 2 - 32)
    data[middle : middle + 64] = bytes(byte ^ 255 for byte in data[middle : middle + 64])
    path.write_bytes(data)


def garbage(path: Path) -> None:
    """As long as it was, of bytes that mean nothing."""
    path.write_bytes(bytes((7 * i + i // 251) % 256 for i in range(path.stat().st_size)))


DAMAGES = (missing, empty, cut, flipped, garbage)


def damages(bench: Bench, ledger: Ledger) -> Iterator[Case]:
    """Every file, every damage, every command."""
    for command, names in (("pretrain", TRAINED), ("evaluate", EVALUATED), ("report", REPORTED)):
        for name in names:
            row = f"{command}: `{name}`"
            for damage in DAMAGES:
                if not ledger.has(DAMAGE, row, damage.__name__):
                    yield _case(bench, command, name, damage, row)


def _case(bench: Bench, command: str, name: str, damage: Callable[[Path], Any], row: str) -> Case:
    if command == "pretrain":
        task = pretraining(bench, "simclr")
        source = _interrupted(bench, task, "stopped" if "stopped" in name else "killed")
        hit = bench.hit(task)
        shutil.copytree(source, hit)
        damage(hit / name)
        return bench.judge(task, DAMAGE, row, damage.__name__, may_refuse=True)
    source = _evaluated(bench)
    hit = bench.folder / "evaluated/hit"
    shutil.rmtree(hit, ignore_errors=True)
    shutil.copytree(source, hit)
    files = sorted((hit / name).iterdir()) if (hit / name).is_dir() else [hit / name]
    for file in files:
        damage(file)
    how = _evaluate if command == "evaluate" else _report
    return how(bench, source, hit, row, damage.__name__)


def _interrupted(bench: Bench, task: Task, how: str) -> Path:
    """A run that was killed, or stopped by SIGTERM, in its last epoch."""
    path = bench.folder / task.name / how
    number = signal.SIGKILL if how == "killed" else signal.SIGTERM
    if not path.exists():
        bench.whole(task)
        ended = bench.start(
            task, how, before=lambda: at_batch(2, 1, lambda: os.kill(os.getpid(), number))
        ).wait()
        assert ended.code in (-9, 143), ended.said
        bench.whole(task)
    return path


def _evaluated(bench: Bench) -> Path:
    """A finished run with results, features and a report of them beside it."""
    path = bench.folder / "evaluated/whole"
    if not (path / "results.json").exists() or not (path.parent / "report/report.md").exists():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(bench.whole(pretraining(bench, "simclr")), path)
        for work in (lambda: evaluate_here(path), lambda: report_of(path)):
            ended = run(work, path.with_suffix(".log"))
            assert ended.code == 0, ended.said
    return path


def evaluate_here(path: Path) -> Any:
    """``ltplugins evaluate``."""
    from omegaconf import OmegaConf

    from ltplugins.stages.compose import compose_packaged
    from ltplugins.stages.evaluate import evaluate

    cfg = compose_packaged("evaluate", [f"run={path}", "device=cpu"])
    OmegaConf.set_struct(cfg, False)
    cfg.eval.knn.k, cfg.eval.linear.shots = 3, [4]
    return evaluate(cfg)


def report_of(path: Path) -> Any:
    """``ltplugins report``, beside the run."""
    from ltplugins.stages.report import report

    return report([path], path.parent / "report")


def _evaluate(bench: Bench, source: Path, hit: Path, row: str, key: str) -> Case:
    ended = run(lambda: evaluate_here(hit), hit.with_suffix(".log"))
    seen = bench.tell(ended)
    if ended.is_refusal:
        return Case(DAMAGE, row, key, REFUSED, seen)
    if ended.code == 0 and "Traceback" not in ended.said and same_results(source, hit):
        return Case(DAMAGE, row, key, EQUAL, seen)
    return Case(DAMAGE, row, key, LOST, seen, f"exit {ended.code}: {ended.said[-200:]}")


def _report(bench: Bench, source: Path, hit: Path, row: str, key: str) -> Case:
    """Its words are those of a sound run, or a line says what is lost."""
    page = source.parent / "report/report.md"
    before = _words(page)
    ended = run(lambda: report_of(hit), hit.with_suffix(".log"))
    after = _words(page) if page.exists() else ""
    page.write_text(before)
    seen = bench.tell(ended)
    if ended.is_refusal:
        return Case(DAMAGE, row, key, REFUSED, seen)
    if ended.code == 0 and "Traceback" not in ended.said and (seen or before == after):
        return Case(DAMAGE, row, key, EQUAL, seen)
    return Case(DAMAGE, row, key, LOST, seen, f"exit {ended.code}: {ended.said[-200:]}")


def _words(page: Path) -> str:
    return page.read_text(encoding="utf-8").replace("evaluated/hit", "evaluated/whole")
