# SPDX-License-Identifier: MIT
"""What became of each fault, a line a case, written as it goes: a soak can be broken off."""

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

EQUAL, REFUSED, LOST, LEFT_OUT = "equal", "refused", "lost", "left out"


@dataclass(frozen=True)
class Case:
    """One fault and its end.

    Attributes:
        part: of the soak.
        row: of the part's table: cases that are counted together.
        key: tells the case from the others of its row.
        verdict: ``equal``, the same command went on and ended as the run that nothing happened to;
            ``refused``, one line and exit code 2; ``lost``, anything else; ``left out``, this
            machine cannot do it.
        seen: the lines that a user saw of it.
        what: of a loss, what happened.
        faults: that were put into it.
        commit: of the version that it was done with.
    """

    part: str
    row: str
    key: str
    verdict: str
    seen: str = ""
    what: str = ""
    faults: int = 1
    commit: str = ""


class Ledger:
    """The cases of a soak, in a file.

    Args:
        path: of the file; cases that it has are not done again,
        commit: where they are of this version. None: of whichever.
    """

    def __init__(self, path: Path, commit: str | None = None) -> None:
        self.path = path
        found = list(_read(path))
        self.cases = [case for case in found if commit in (None, case.commit)]
        self._known = {(case.part, case.row, case.key) for case in self.cases}

    def has(self, part: str, row: str, key: str) -> bool:
        """Whether a case is done."""
        return (part, row, key) in self._known

    def add(self, case: Case) -> None:
        """Write a case down."""
        self.cases.append(case)
        self._known.add((case.part, case.row, case.key))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(case)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self, part: str) -> dict[str, list[Case]]:
        """The cases of a part by row, in the order in which they were done."""
        found: dict[str, list[Case]] = {}
        for case in self.cases:
            if case.part == part:
                found.setdefault(case.row, []).append(case)
        return found

    @property
    def lost(self) -> list[Case]:
        """What nobody may be content with."""
        return [case for case in self.cases if case.verdict == LOST]


def _read(path: Path) -> Iterator[Case]:
    """The whole lines of the file; a soak that was killed leaves half of one."""
    if not path.exists():
        return
    whole = path.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    if len(kept) < len(whole):
        path.write_bytes(kept)
    for line in kept.decode().splitlines():
        yield Case(**json.loads(line))
