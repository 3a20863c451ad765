# SPDX-License-Identifier: MIT
"""The figure of an entry, of its facts alone: accuracy by shot group, as a report draws it."""

from pathlib import Path

from ltplugins.core.files import atomic_path
from ltplugins.eval.results import Stat
from ltplugins.report.figures import draw_groups
from ltplugins.report.style import theme
from ltplugins.report.table import Cell, Row, Section
from ltplugins.zoo.card import FIGURE, require_zoo, rule_of
from ltplugins.zoo.facts import ZooFacts
from ltplugins.zoo.page import read_facts

_GROUPS = ("many", "medium", "few")


def draw_entry(folder: Path) -> Path:
    """Write the figure into an entry's folder and return it.

    Raises:
        UserError: it is no entry of a zoo.
    """
    zoo = require_zoo(read_facts(folder)[1])
    path = folder / FIGURE
    with theme(zoo.name), atomic_path(path) as tmp:
        # Small: it travels with the weights.
        draw_groups(_sections(zoo)).savefig(tmp, dpi=80, metadata={"Software": None})
    return path


def _sections(zoo: ZooFacts) -> list[Section]:
    sections = []
    for name, entry in zoo.protocols.items():
        rule = rule_of(entry)
        groups = entry.groups[rule] if rule else {}
        cells = {"overall": _cell(entry.overall)}
        cells |= {group: _cell(groups.get(group)) for group in _GROUPS}
        row = Row(zoo.name, len(zoo.runs), cells)
        sections.append(Section(name, entry.description, rule or "", [row], []))
    return sections


def _cell(stat: Stat | None) -> Cell:
    return Cell(None) if stat is None else Cell(stat.mean, stat.std)
