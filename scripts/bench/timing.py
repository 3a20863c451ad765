# SPDX-License-Identifier: MIT
"""How the benchmark measures: contestants take turns, medians, a bar for each row.

Times are processor seconds of this process unless a row needs others: what else runs on the machine
then hardly counts, where wall time would measure the neighbours.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        measured: a ratio ("x"), seconds ("s") or megabytes ("MB").
        bar: what it must not exceed, or with ``at_least`` must reach.
        details: the times behind a ratio.
    """

    what: str
    measured: float
    bar: float
    unit: str = "x"
    at_least: bool = False
    details: str = ""

    @property
    def passes(self) -> bool:
        return self.measured >= self.bar if self.at_least else self.measured <= self.bar


def medians(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
    calls: int = 1,
) -> dict[str, float]:
    """Median seconds of a call; they take turns of ``calls`` each, and the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, work in contestants.items():
            start = clock()
            for _ in range(calls):
                work()
            seconds[name].append((clock() - start) / calls)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def milliseconds(work: Callable[[], object], rounds: int = 3) -> float:
    return 1000 * medians({"work": work}, rounds)["work"]


def ratio(
    what: str, fast: Callable[[], object], slow: Callable[[], object], bar: float, rounds: int
) -> Row:
    """Time of ``fast`` as a share of ``slow``'s, both of milliseconds: five calls a turn."""
    times = medians({"fast": fast, "slow": slow}, rounds, calls=5)
    details = f"{1000 * times['fast']:.2f} / {1000 * times['slow']:.2f} ms"
    return Row(what, times["fast"] / times["slow"], bar, details=details)


def print_row(row: Row) -> None:
    sign = ">=" if row.at_least else "<="
    print(
        f"{row.what:<58} {sign} {row.bar:7.3f} {row.unit:<2} {row.measured:9.3f} {row.unit:<2}  "
        f"{'pass' if row.passes else 'FAIL'}  {row.details}",
        flush=True,
    )


def print_table(columns: Mapping[str, Mapping[str, float]]) -> None:
    """In Markdown: a column each, and a row for each name that they all have."""
    print("| | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name in next(iter(columns.values())):
        print(f"| {name} | " + " | ".join(f"{c[name]:,.3g}" for c in columns.values()) + " |")
    print(flush=True)
