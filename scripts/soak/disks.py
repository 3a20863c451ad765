# SPDX-License-Identifier: MIT
"""Disks that are too small, and such as cannot be written: real ones, in memory, where root is."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from scripts.soak.kills import STAGES
from scripts.soak.ledger import EQUAL, LEFT_OUT, LOST, REFUSED, Case, Ledger
from scripts.soak.tasks import Bench, Task

DISKS = "disks"
_LARGE = "64m"
_SHARES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0, 1.1, 1.5)
_NO_MOUNT = "this user may not mount a disk"


def disks(bench: Bench, ledger: Ledger) -> Iterator[Case]:
    """Each stage on disks of shares of what it needs; then with room; read-only ones."""
    for name, build in STAGES.items():
        row = f"disk full, {name}"
        for share in _SHARES:
            if not ledger.has(DISKS, row, str(share)):
                yield _full(bench, build(bench), row, share)
        row = f"read-only disk, {name}"
        for state in ("nothing there", "finished"):
            if not ledger.has(DISKS, row, state):
                yield _read_only(bench, build(bench), row, state)


def _full(bench: Bench, task: Task, row: str, share: float) -> Case:
    key = str(share)
    size = max(16384, int(share * _bytes(bench.whole(task))))
    bench.hit(task)
    with _disk(bench, task, str(size)) as place:
        if place is None:
            return Case(DISKS, row, key, LEFT_OUT, what=_NO_MOUNT)
        small = bench.start(task).wait()
        if small.code != 0 and not small.is_refusal:
            return Case(DISKS, row, key, LOST, what=f"exit {small.code}: {small.said[-200:]}")
        _mount("-o", f"remount,size={_LARGE}", str(place))
        return bench.judge(task, DISKS, row, key, before=bench.tell(small))


def _read_only(bench: Bench, task: Task, row: str, state: str) -> Case:
    whole = bench.whole(task)
    bench.hit(task)
    with _disk(bench, task, _LARGE) as place:
        if place is None:
            return Case(DISKS, row, state, LEFT_OUT, what=_NO_MOUNT)
        if state == "finished":
            shutil.copytree(whole, place, dirs_exist_ok=True)
        _mount("-o", "remount,ro", str(place))
        ended = bench.start(task).wait()
        seen = bench.tell(ended)
        if ended.is_refusal and (state != "finished" or task.name == "evaluate"):
            return Case(DISKS, row, state, REFUSED, seen)
        if ended.code == 0 and state == "finished" and task.is_same(whole, place):
            return Case(DISKS, row, state, EQUAL, seen)
        return Case(DISKS, row, state, LOST, seen, f"exit {ended.code}: {ended.said[-200:]}")


@contextlib.contextmanager
def _disk(bench: Bench, task: Task, size: str) -> Iterator[Path | None]:
    """A disk of its own in the place of the folder that a fault is put into."""
    place = bench.folder / task.name / "hit"
    if place.is_mount():  # of a soak that was killed
        subprocess.run(["umount", "-l", str(place)], check=True)
    place.mkdir(parents=True, exist_ok=True)
    if not _mount("-t", "tmpfs", "-o", f"size={size}", "soak", str(place)):
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True).returncode == 0
    except OSError:
        return False


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
