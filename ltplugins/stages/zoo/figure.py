# SPDX-License-Identifier: MIT
"""Accuracy by shot group, as a report draws it: of an entry, and of all of a data set's entries.

They are drawn of what entries say of themselves, and of nothing else.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ltplugins.core.files import atomic_path
from ltplugins.eval.results import Stat
from ltplugins.report.cells import Cell, Row, Section
from ltplugins.report.figures import draw_groups
from ltplugins.report.style import theme
from ltplugins.zoo.card import FIGURE
from ltplugins.zoo.facts import EntryProtocol, ZooFacts, read_facts, require_zoo
from ltplugins.zoo.folder import entries_of
from ltplugins.zoo.page import figure_of
from ltplugins.zoo.words import rule_of

_GROUPS = ("many", "medium", "few")


def draw_entry(folder: Path) -> Path:
    """Write the figure into an entry's folder and return it.

    Raises:
        UserError: it is no entry of a zoo.
    """
    return _draw([require_zoo(read_facts(folder)[1])], folder / FIGURE)


def draw_zoo(zoo: Path) -> list[Path]:
    """Write the figure of each data set into a zoo's folder and return them.

    Raises:
        UserError: an entry is damaged.
    """
    found = defaultdict(list)
    for _, facts in entries_of(zoo).values():
        found[str(facts.dataset)].append(require_zoo(facts))
    return [_draw(entries, zoo / figure_of(dataset)) for dataset, entries in found.items()]


def _draw(entries: Sequence[ZooFacts], path: Path) -> Path:
    names = dict.fromkeys(name for zoo in entries for name in zoo.protocols)
    with theme(path.stem), atomic_path(path) as tmp:
        # Small: it travels with the weights.
        figure = draw_groups([_section(name, entries) for name in names])
        figure.savefig(tmp, dpi=80, metadata={"Software": None})
    return path


def _section(protocol: str, entries: Sequence[ZooFacts]) -> Section:
    """A protocol's panel: a row an entry, n/a without it; of classifiers, those that have one."""
    known = [zoo.protocols.get(protocol) for zoo in entries]
    of_some = any(entry is not None and entry.kind == "classifier" for entry in known)
    rows = [
        Row(label, len(zoo.runs), _cells(entry))
        for label, zoo, entry in zip(row_labels(entries), entries, known, strict=True)
        if entry is not None or not of_some
    ]
    return Section(protocol, "", "", rows, [])


def row_labels(entries: Sequence[ZooFacts]) -> list[str]:
    """Names of entries without the parts that all of them share; with what learned from labels."""
    parts = [zoo.name.split("-") for zoo in entries]
    shared = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    short = ["-".join(p for p in own if p not in shared) for own in parts]
    return [
        (label or zoo.name) + (" (labels)" if zoo.labels else "")
        for label, zoo in zip(short, entries, strict=True)
    ]


def _cells(entry: EntryProtocol | None) -> dict[str, Cell]:
    if entry is None:
        return {name: Cell(None) for name in ("overall", *_GROUPS)}
    groups = entry.groups.get(rule_of(entry) or "", {})
    found = {"overall": entry.overall, **{name: groups.get(name) for name in _GROUPS}}
    return {name: _cell(stat) for name, stat in found.items()}


def _cell(stat: Stat | None) -> Cell:
    return Cell(None) if stat is None else Cell(stat.mean, stat.std)
