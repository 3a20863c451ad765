# SPDX-License-Identifier: MIT
"""``python scripts/fuzz/all.py``: inputs that nobody has thought of, for whatever reads any.

Every input either works or is refused in one line with exit code 2; see ``judge``. What it finds it
shows, shrunk, once for each place in the code, and goes on; exit code 1 where there is anything.
"""

import argparse
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings

from scripts.fuzz.images import IMAGES
from scripts.fuzz.judge import Finding, Target, judge
from scripts.fuzz.lists import INDICES, LISTS
from scripts.fuzz.models import CHECKPOINTS, MANIFESTS
from scripts.fuzz.words import CONFIGS, OVERRIDES

TARGETS = {t.name: t for t in (OVERRIDES, CONFIGS, LISTS, INDICES, MANIFESTS, CHECKPOINTS, IMAGES)}
_AT_ONCE = 100


def look_through(
    target: Target, count: int, use: Callable[[object], object], number: int | None = None
) -> None:
    """Draw inputs of a target.

    Args:
        target: whose they are.
        count: how many.
        use: is given each.
        number: of the generator; None = the same inputs every time.

    Raises:
        Exception: whatever ``use`` raises, of the simplest input for which it does.
    """

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=number is None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(target.inputs)
    def check(drawn: object) -> None:
        use(drawn)

    (check if number is None else seed(number)(check))()


def fuzz(target: Target, minutes: float, number: int) -> dict[str, str]:
    """Fuzz one target for so long.

    Returns:
        What was found: its place in the code, and the whole.
    """
    found: dict[str, str] = {}
    counts: Counter[str] = Counter()
    numbers, end = random.Random(number), time.monotonic() + 60 * minutes

    def use(drawn: object) -> None:
        try:
            counts[judge(target, drawn)] += 1
        except Finding as finding:
            if place_of(finding) not in found:
                raise

    while not counts or time.monotonic() < end:
        try:
            look_through(target, _AT_ONCE, use, numbers.getrandbits(32))
        except Finding as finding:
            notes = "\n".join(getattr(finding, "__notes__", ()))
            found[place_of(finding)] = f"{finding}\n{notes[:3000]}"
            print(f"FOUND {place_of(finding)}\n{found[place_of(finding)]}", flush=True)
        except BaseExceptionGroup as group:
            for finding in group.exceptions:
                text = "".join(traceback.format_exception(finding))
                found[place_of(finding)] = text
                print(f"FOUND {place_of(finding)}\n{text[-6000:]}", flush=True)
    shown = ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
    print(f"{target.name}: {shown}; {len(found)} found", flush=True)
    return found


def place_of(finding: BaseException) -> str:
    """The innermost line of ours in the traceback that a finding tells, and its error."""
    text = str(finding)
    lines = re.findall(r"(ltplugins/[\w/]+\.py)\", line (\d+)", text)
    errors = re.findall(r"^error: not expected \((\w+)\)", text, re.MULTILINE)
    place = ":".join(lines[-1]) if lines else f"{type(finding).__name__} {text[:120]}"
    return f"{place} {errors[-1] if errors else ''}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Fuzz the targets one after the other."""
    parser = argparse.ArgumentParser(description="inputs that nobody has thought of")
    parser.add_argument("--minutes", type=float, default=10, help="for each target (10)")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0, help="other inputs")
    asked = parser.parse_args(arguments)
    found = [fuzz(TARGETS[name], asked.minutes, asked.seed) for name in asked.only]
    sys.exit(any(found))


if __name__ == "__main__":
    main()
