# SPDX-License-Identifier: MIT
"""The commands that README.md and docs/*.md show, as a shell would read them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.kit.paths import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
# How a line of inline code begins that is a command; in a fenced block every line is one.
STARTS = ("ltplugins ", "python ", "pip ", "make ", "torchrun ", "srun ")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Shown:
    """A command of a page: the words of its line, and whether it stands in a fenced block."""

    page: str
    line: int
    words: tuple[str, ...]
    is_block: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {' '.join(self.words)}"

    @property
    def ltplugins(self) -> list[str] | None:
        """What ``ltplugins`` itself is given, however it is started; None for another program."""
        for i, word in enumerate(self.words):
            is_script = re.fullmatch(
                r"scripts/(pretrain|evaluate|balance|finetune|segment)\.py", word
            )
            if is_script:
                return [is_script[1], *self.words[i + 1 :]]
            if word in ("ltplugins", "ltplugins.cli"):
                return list(self.words[i + 1 :])
        return None


def commands(page: str) -> list[Shown]:
    """All commands of a page in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for block in FENCE.finditer(text):
        first = text.count("\n", 0, block.start(2)) + 1
        if block[1] in ("bash", "sh"):
            found += [Shown(page, first + at, words, True) for at, words in _lines_of(block[2])]
    prose = FENCE.sub(lambda block: re.sub(r"[^\n]", "", block[0]), text)
    for code in re.finditer(r"(?<!`)`([^`]+)`(?!`)", prose):
        line = " ".join(code[1].split())
        if line.startswith(STARTS):
            at = prose.count("\n", 0, code.start()) + 1
            found.append(Shown(page, at, tuple(shlex.split(line)), False))
    return sorted(found, key=lambda shown: shown.line)


def _lines_of(block: str) -> list[tuple[int, tuple[str, ...]]]:
    """Each command of a fenced block and its line; a backslash joins, "#" is a comment."""
    lines, start, text = [], 0, ""
    for at, line in enumerate(block.splitlines()):
        start = start if text else at
        text += line
        if text.endswith("\\"):
            text = text[:-1]
            continue
        words = tuple(shlex.split(text, comments=True))
        if words:
            lines.append((start, words))
        text = ""
    return lines


def targets(makefile: Path = ROOT / "Makefile") -> set[str]:
    """What ``make`` can be told to do."""
    return set(re.findall(r"^([a-z]+):", makefile.read_text(), re.MULTILINE))
