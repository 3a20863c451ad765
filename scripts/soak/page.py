# SPDX-License-Identifier: MIT
"""``docs/faults.md``: what was injected, how often, what was lost, what was seen."""

import itertools
import re
from pathlib import Path

from ltplugins.core.files import write_text
from scripts.soak.damage import DAMAGE
from scripts.soak.disks import DISKS
from scripts.soak.images import IMAGES
from scripts.soak.kills import KILLS, MOMENTS
from scripts.soak.ledger import EQUAL, LEFT_OUT, LOST, REFUSED, Case, Ledger
from scripts.soak.ranks import RANKS
from scripts.soak.stops import SIGNALS
from scripts.soak.workers import WORKERS

PAGE = Path(__file__).resolve().parents[2] / "docs/faults.md"
_HEAD = """# Faults

What was put into tiny runs, how often, and what became of them. `make soak` writes this page; a
short form of it runs with the tests. Every number is a count of cases; a case may have several
faults. How many there are is how long it ran: it goes on where it was broken off.

- *equal*: given again until it was finished, the same command ended as where nothing had happened:
  weights, buffers, optimiser and schedule bit by bit; of an evaluation, all its numbers. Of an
  image: it was trained on, with the pixels that are meant.
- *refused*: one line and exit code 2.
- *lost*: anything else: another end, a traceback, a process that did not end, a wrong exit code.

"""
_PARTS = {
    KILLS: """## Killed at a random moment

`kill -9` once to three times in a training, at a moment of its processor time drawn by the seed:
{faults} kills. Methods: {keys}.
""",
    MOMENTS: """## Killed at each step of the disk

A process that dies before a flush (fsync), a renaming or a link: before {every} of them, up to the
last.
""",
    SIGNALS: """## Stopped by a signal

Once within the training of each stage; and at random moments, also before and after the training,
where a signal does what it does to any program. SIGUSR1 under SLURM's variables.
""",
    WORKERS: """## Processes that load images

One that is killed, stopped (SIGSTOP) or hangs in the second epoch, in the training's or in the
validation's loader, with `data.worker_timeout=3`. The line comes, then the same command goes on.
""",
    RANKS: """## Two ranks

DDP on gloo. The signal comes while they train; they have five minutes to end, all of them.
""",
    DAMAGE: """## Damaged files

Missing, empty, cut in half, 64 flipped bytes, garbage of the same length. Under `pretrain` the run
had been killed, or stopped, in its last epoch. A `report` counts as equal where its words are the
same, or a line says what they lack.
""",
    DISKS: """## Disks

A disk in memory with room for 2 % to 150 % of what the command writes, made larger afterwards; one
that cannot be written, with nothing on it and with the finished folder.
""",
    IMAGES: """## Images

One such file among fourteen, on every engine; damaged ones with `data.on_corrupt=fail` (refused)
and `skip` (trained on without it, and said). Pipes and devices are left out, and said, under both.
""",
}
_TABLE = "| injected | cases | equal | refused | lost | seen |\n|---|---|---|---|---|---|\n"


def write_page(ledger: Ledger, path: Path = PAGE) -> None:
    """Write the page of what is known by now."""
    found = [_part(text, ledger.rows(part)) for part, text in _PARTS.items() if ledger.rows(part)]
    lost = [_loss(case) for case in ledger.lost]
    end = f"## Lost\n\n{len(lost)} of {len(ledger.cases)} cases.\n" + "".join(lost)
    write_text(path, "\n".join([_HEAD, *found, end]))


def _part(text: str, rows: dict[str, list[Case]]) -> str:
    """A section: what was done, with which version, and its table."""
    cases = [case for same in rows.values() for case in same]
    words = {"faults": sum(case.faults for case in cases), "every": _every(cases)}
    keys = ", ".join(sorted({case.key.split()[-1] for case in cases}))
    commits = ", ".join(dict.fromkeys(case.commit for case in cases))
    lines = "\n".join(_line(row, same) for row, same in rows.items())
    return f"{text.format(keys=keys, **words)}\nOf commit {commits}.\n\n{_TABLE}{lines}\n"


def _every(cases: list[Case]) -> str:
    """Which of the steps of a row were taken, where its keys count them."""
    numbers = sorted({int(case.key) for case in cases if case.key.isdigit()})
    gap = min((b - a for a, b in itertools.pairwise(numbers)), default=1)
    return "each" if gap == 1 else f"one in {gap}"


def _line(row: str, cases: list[Case]) -> str:
    done = [case for case in cases if case.verdict != LEFT_OUT]
    if not done:
        return f"| {row} | 0 | | | | {_cell(cases[0].what)} |"
    counts = [sum(case.verdict == v for case in done) for v in (EQUAL, REFUSED, LOST)]
    numbers = " | ".join(str(n) for n in (len(done), *counts))
    seen = dict.fromkeys(_plain(case.seen) for case in done if case.seen)
    return f"| {row} | {numbers} | {'<br>'.join(_cell(s) for s in list(seen)[:2])} |"


def _plain(seen: str) -> str:
    """The first line, without what differs from case to case."""
    line = " ".join(seen.splitlines()[0].split()).removeprefix("WARNING ")
    line = re.sub(r"[\w./-]*/(?=[\w=.-]+\.(?:ckpt|json|csv|yaml|png|jpg|tif)\b)", "", line)
    line = re.sub(r"[0-9a-f]{24,}", "HASH", line)
    return re.sub(r"\b(step|after|epoch|and) \d+", r"\1 N", line)


def _cell(text: str) -> str:
    short = text if len(text) <= 150 else text[:149] + "…"
    return "`" + short.replace("|", "/").replace("`", "'") + "`"


def _loss(case: Case) -> str:
    what = " ".join(case.what.split())[:300].replace("`", "'")
    return f"- {case.row}, {case.key}: {what}\n"
