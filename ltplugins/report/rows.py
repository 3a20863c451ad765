# SPDX-License-Identifier: MIT
"""Which runs are repetitions of one experiment, and how rows that are not are told apart.

The runs of a row are equal in all but seed, class order, split seed and fold. Where runs of one
method differ in more, what differs stands in the rows' names: ``simclr (max_epochs=60)``.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltplugins.report.evaluated import RunResult
from ltplugins.runs.facts import Progress

_MAX_NAMED = 4  # keys in a row's name
_MAX_LETTERS = 24  # of a value there


@dataclass(frozen=True)
class Trait:
    """Something in which two runs may differ.

    Attributes:
        value: what is compared; None of a run that does not know it: another's ``shown`` decides.
        shown: how it is told.
        is_known: whether ``value`` may be compared at all.
        matters: whether it does in rows that were made by hand, too: other data, other progress.
    """

    value: Any
    shown: str
    is_known: bool = True
    matters: bool = False


def progress_mark(progress: Progress | None) -> str:
    """How far an unfinished training came, ``2/30 epochs``; nothing where all was trained."""
    if progress is None or progress.is_complete:
        return ""
    text = f"{progress.epochs}/{progress.planned_epochs} epochs"
    if progress.epochs == 0:
        text += f", {progress.steps}/{progress.planned_steps} steps"
    return text


def name_rows(
    runs: Sequence[RunResult],
    traits: Mapping[str, Mapping[str, Trait]],
    given: Mapping[str, str],
) -> None:
    """Set each run's ``group_key``: its method, or its given row, and what tells it from others.

    Args:
        runs: whose ``group_key`` is the method.
        traits: run's name -> key -> trait.
        given: run's name -> row, where that is not its method.
    """
    rows: dict[str, list[RunResult]] = defaultdict(list)
    for run in runs:
        run.group_key = given.get(run.name, run.group_key)
        rows[run.row_name].append(run)
    for members in rows.values():
        by_hand = all(run.name in given for run in members)
        own = {run.name: _comparable(traits[run.name], by_hand) for run in members}
        _tell_apart(members, own)
        for run in members:
            mark = progress_mark(run.progress)
            if mark and mark not in run.row_name:
                run.group_key = f"{run.row_name} ({mark})"


def _comparable(traits: Mapping[str, Trait], by_hand: bool) -> dict[str, Trait]:
    return {key: trait for key, trait in traits.items() if trait.matters or not by_hand}


def _tell_apart(members: Sequence[RunResult], traits: Mapping[str, Mapping[str, Trait]]) -> None:
    """Give runs that are no repetitions of one another rows of their own."""
    keys = [key for key in _keys(traits) if _differs(key, traits)]
    parts: dict[tuple[Any, ...], list[RunResult]] = defaultdict(list)
    for run in members:
        parts[tuple(_value(key, traits, run.name) for key in keys)].append(run)
    if len(parts) > 1:
        names = [_name(keys, traits, part[0]) for part in parts.values()]
        for name, part in zip(names, parts.values(), strict=True):
            # What is told in full is not always all; then the folder tells.
            twice = f", {part[0].name}" if names.count(name) > 1 else ""
            for run in part:
                told = f"{name}{twice}".removeprefix(", ")
                run.group_key = f"{run.row_name} ({told})" if told else run.row_name
    for part in parts.values():
        _separate_twins(part)


def _separate_twins(members: Sequence[RunResult]) -> None:
    """Runs of one split and seed are no repetitions either: they stand under their names."""
    if len({run.pair_key for run in members}) == len(members):
        return
    names = [f"{run.row_name} ({run.short_name or run.name})" for run in members]
    pairs = [(name, run.pair_key) for name, run in zip(names, members, strict=True)]
    for (name, pair), run in zip(pairs, members, strict=True):
        # Two of one name as well: the folders tell them apart.
        run.group_key = f"{run.row_name} ({run.name})" if pairs.count((name, pair)) > 1 else name


def _keys(traits: Mapping[str, Mapping[str, Trait]]) -> list[str]:
    return list(dict.fromkeys(key for own in traits.values() for key in own))


def _value(key: str, traits: Mapping[str, Mapping[str, Trait]], name: str) -> str:
    """What is compared: the value where all runs know it, else what is shown."""
    trait = traits[name].get(key)
    if trait is None:
        return ""
    all_known = all(own[key].is_known for own in traits.values() if key in own)
    return repr(trait.value) if all_known else trait.shown


def _differs(key: str, traits: Mapping[str, Mapping[str, Trait]]) -> bool:
    if key.startswith("eval.") and any(key not in own for own in traits.values()):
        return False  # of a protocol that not all have: its line shows n/a
    return len({_value(key, traits, name) for name in traits}) > 1


def _name(keys: Sequence[str], traits: Mapping[str, Mapping[str, Trait]], run: RunResult) -> str:
    last = [key.rpartition(".")[2] for key in keys]
    parts = []
    for key, short in zip(keys, last, strict=True):
        trait = traits[run.name].get(key)
        if key == "progress":
            parts.append(trait.shown if trait else "")
            continue
        shown = trait.shown if trait else "none"
        if len({own[key].shown for own in traits.values() if key in own}) == 1 and trait:
            shown = f"{shown}, contents {str(trait.value)[:6]}"  # at one place, but others
        parts.append(f"{short if last.count(short) == 1 else key}={_cut(shown)}")
    parts = [part for part in parts if part]
    more = len(parts) - _MAX_NAMED
    return ", ".join(parts[:_MAX_NAMED]) + (f", and {more} more keys" if more > 0 else "")


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LETTERS or "contents" in text else f"…{text[-_MAX_LETTERS:]}"
