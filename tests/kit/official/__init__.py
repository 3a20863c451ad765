# SPDX-License-Identifier: MIT
"""The official numbers of each file under scripts/pretrain beside ours, and what differs.

``settings.yaml`` holds the numbers of the official codes, ``scripts.yaml`` which setting a file is,
in what it differs and why. Ours are read off the composed and resolved file and off the model,
optimizer and schedule that are built from it (``ours.py``); docs/official.md is written from both
(``python -m tests.kit.official.page``).
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.kit.official.ours import ours
from tests.kit.paths import ROOT

FOLDER = ROOT / "scripts/pretrain"
PAGE = ROOT / "docs/official.md"
# Steps of an image-by-image transform that most official codes do not have.
ABSENT = {"randaugment": "none", "crop_of": "the image"}


@dataclass(frozen=True)
class Setting:
    """What an official code trains with: where that was read, and the numbers by name."""

    repository: str
    commit: str
    command: str
    read: str
    numbers: dict[str, Any]
    rates_within: float = 0.001  # of the largest rate


@dataclass(frozen=True)
class Difference:
    """One number that differs: its name, both values, the words of the file's head, the reason."""

    name: str
    official: Any
    ours: Any
    words: str
    reason: str


@dataclass(frozen=True)
class Script:
    """A file under scripts/pretrain; ``setting`` is None where no official code has one."""

    name: str  # folder/stem
    head: str
    setting: Setting | None
    equal: dict[str, Any] = dataclasses.field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    unlisted: dict[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    needless: tuple[str, ...] = ()  # listed as differing, and equal


def names() -> list[str]:
    """Every file under scripts/pretrain, as "cifar/gh_simclr"."""
    return sorted(str(p.relative_to(FOLDER).with_suffix("")) for p in FOLDER.rglob("*.yaml"))


@functools.cache
def tables() -> tuple[dict[str, Setting], dict[str, Any], dict[str, Any]]:
    """The settings by name; the scripts' entries by name; words and reason of each number."""
    here = Path(__file__).parent
    official = yaml.safe_load((here / "settings.yaml").read_text())["settings"]
    listed = yaml.safe_load((here / "scripts.yaml").read_text())
    return (
        {name: Setting(**block) for name, block in official.items()},
        listed["scripts"],
        listed["numbers"],
    )


def head_of(name: str) -> str:
    """The comment at the top of a file, on one line."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    rest = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.lstrip("# ") for line in lines[:rest])


@functools.cache
def script(name: str) -> Script:
    """Compare one file with its official setting, number by number."""
    settings, scripts, numbers = tables()
    entry = scripts.get(name)
    if entry is None:
        return Script(name, head_of(name), None)
    setting = settings[entry["equals"]]
    listed = entry.get("differs", {})
    equal, differences, unlisted, needless = {}, [], {}, []
    theirs = _by_view(setting.numbers)
    found = _by_view(ours(name, tuple(setting.numbers["rates"])))
    for key, official in theirs.items():
        own = found.get(key)
        if _same(key, official, own, setting.rates_within):
            equal[key] = official
            needless += [key] if key in listed else []
        elif key not in listed:
            unlisted[key] = (official, own)
        else:
            words, reason = listed[key] or numbers[key]
            differences.append(Difference(key, official, own, words, reason))
    needless += sorted(set(listed) - set(theirs))
    return Script(
        name, head_of(name), setting, equal, tuple(differences), unlisted, tuple(needless)
    )


def _by_view(numbers: dict[str, Any]) -> dict[str, Any]:
    """Flat: "gh.warmup"; a step of the views is one value, or one a view where they differ."""
    flat: dict[str, Any] = {}
    for key, value in numbers.items():
        if key == "views":
            for step in (*value[0], *ABSENT):
                column = [view.get(step, ABSENT.get(step)) for view in value]
                flat[step] = column[0] if all(x == column[0] for x in column) else column
        elif isinstance(value, dict) and key != "rates":
            flat |= {f"{key}.{option}": x for option, x in value.items()}
        else:
            flat[key] = value
    return flat


def _same(key: str, official: Any, own: Any, rates_within: float) -> bool:
    if key == "rates":
        margin = rates_within * max(official.values())
        pairs = ((own.get(epoch, math.inf), rate) for epoch, rate in official.items())
        return all(abs(mine - rate) <= margin for mine, rate in pairs)
    if key == "statistics":
        pairs = zip(official, own, strict=True)
        return all(abs(a - b) < 1e-3 for x, y in pairs for a, b in zip(x, y, strict=True))
    return bool(official == own)
