# SPDX-License-Identifier: MIT
"""``make soak``: faults put into tiny runs, and what became of them, as ``docs/faults.md``.

What is done is written down case by case in ``--folder``; the same command goes on from there, and
``--only`` does one part. A process that was killed, stopped or damaged gets the same command again
until it is finished, and is then compared with the one that nothing happened to.
"""

import argparse
import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.soak.damage import DAMAGE, damages
from scripts.soak.disks import DISKS, disks
from scripts.soak.images import IMAGES, images
from scripts.soak.kills import KILLS, MOMENTS, STAGES, each_moment, random_kills
from scripts.soak.ledger import Case, Ledger
from scripts.soak.page import PAGE, write_page
from scripts.soak.ranks import RANKS, ranks
from scripts.soak.stops import SIGNALS, each_signal
from scripts.soak.tasks import ENGINES, Bench, trainings
from scripts.soak.workers import WORKERS, loader_faults
from tests.kit.cases import run_names

ROOT = Path(__file__).resolve().parents[2]


def parts(
    bench: Bench, ledger: Ledger, asked: argparse.Namespace
) -> dict[str, Callable[[], Iterator[Case]]]:
    """What there is, in the order in which it is done: the quick ones first."""
    return {
        IMAGES: lambda: images(bench, ledger, asked.engines),
        DAMAGE: lambda: damages(bench, ledger),
        MOMENTS: lambda: each_moment(bench, ledger, STAGES, asked.stride),
        SIGNALS: lambda: each_signal(bench, ledger, asked.times, asked.seed),
        DISKS: lambda: disks(bench, ledger),
        WORKERS: lambda: loader_faults(bench, ledger),
        RANKS: lambda: ranks(bench, ledger, asked.times),
        KILLS: lambda: random_kills(
            bench, ledger, trainings(asked.methods, asked.engines), asked.kills, asked.seed
        ),
    }


def commit() -> str:
    """Of the checkout, with "+dirty"."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+dirty", "--abbrev=12"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def main() -> None:
    """Do it and write the page; exit code 1 where anything is lost."""
    parser = argparse.ArgumentParser(description="faults put into runs")
    parser.add_argument("--kills", type=int, default=100, help="random ones, over all methods")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=3, help="each signal at each stage")
    parser.add_argument("--stride", type=int, default=1, help="every so many steps of the disk")
    parser.add_argument("--only", nargs="*", help="parts; without it, all")
    parser.add_argument("--cases", type=int, help="at most so many more of each part")
    parser.add_argument("--methods", nargs="*", default=run_names())
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--keep", action="store_true", help="count cases of other commits, too")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/soak")
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args()
    if sys.platform != "linux":
        parser.error("expected Linux, whose processes it looks at, got " + sys.platform)
    here = commit()
    os.environ.setdefault("LTPLUGINS_CACHE", str(asked.folder / "cache"))
    bench = Bench(asked.folder / here)
    ledger = Ledger(asked.folder / "cases.jsonl", None if asked.keep else here)
    known = parts(bench, ledger, asked)
    for name in asked.only or known:
        for case in itertools.islice(known[name](), asked.cases):
            ledger.add(dataclasses.replace(case, commit=here))
            print(f"{case.part}: {case.row}, {case.key}: {case.verdict} {case.what[:200]}")
            write_page(ledger, asked.page)
    write_page(ledger, asked.page)
    sys.exit(bool(ledger.lost))


if __name__ == "__main__":
    main()
