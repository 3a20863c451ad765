# SPDX-License-Identifier: MIT
"""The file of a zoo's family: its entries, and the cells that each is made of."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml

from ltplugins.catalogue.files import CONFIG
from ltplugins.catalogue.index import require_name
from ltplugins.core.errors import UserError, unknown
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import Section, parse
from ltplugins.stages.claims.book import Arm, Book, Epochs, read_book
from ltplugins.stages.claims.cells import Cell, Setting, make_cell
from ltplugins.zoo.facts import EntryRun, read_facts

Pairs = Annotated[int, AtLeast(1)]
Repetition = tuple[str, str, str]  # seed, class order, fold; "" where there is none
_REPEATS = ("seed", "data.imbalance.class_order", "data.fold")


@dataclass(frozen=True)
class Member(Section):
    """What an entry is made of.

    Attributes:
        data, arm: of the book.
        epochs: of its cells.
        half: whether its weights are kept in float16.
    """

    data: str
    arm: str
    epochs: Epochs
    half: bool = True


@dataclass(frozen=True)
class Family(Section):
    """The whole file.

    Attributes:
        book: the file of the claims, relative to this one; its cells are used.
        pairs: data set -> how many pairs are trained for an entry.
        arms: beside the book's.
        entries: by name.
    """

    book: str
    pairs: dict[str, Pairs]
    entries: dict[str, Member]
    arms: dict[str, Arm] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """An entry that is to be, and what there is of it.

    Attributes:
        name: of the entry.
        cells: of all pairs of its data set, in the book's order.
        pairs: how many of them it needs.
        entry: its folder in the zoo.
        epochs: of its cells.
        half: whether its weights are kept in float16.
    """

    name: str
    cells: tuple[Cell, ...]
    pairs: int
    entry: Path
    epochs: int
    half: bool

    @property
    def done(self) -> list[Cell]:
        """Cells that are finished here."""
        return [cell for cell in self.cells if cell.is_done]

    def state(self, replace: bool = False) -> str:
        """What is to be done for it: ``nothing``, ``add`` from finished cells, or ``train``.

        An entry is made anew where more pairs are finished here than it is of; one that is of
        enough of them, some of which are not here, stays.

        Args:
            replace: make it anew in any case.
        """
        there = self.repetitions()
        here = {repetition_of(cell) for cell in self.done}
        if not replace and len(there) >= self.pairs and (here <= there or not there <= here):
            return "nothing"
        return "add" if all(cell.is_done for cell in self.cells[: self.pairs]) else "train"

    def missing(self) -> list[Cell]:
        """Cells that are trained for it, each after the one that it starts from."""
        found: list[Cell] = []
        for cell in self.cells[: self.pairs]:
            if not cell.is_done:
                found += [of for of in (cell.of,) if of is not None and not of.has_weights]
                found.append(cell)
        return found

    def repetitions(self) -> set[Repetition]:
        """Those that the entry in the zoo is of; none where it is of other epochs.

        Raises:
            UserError: a folder of its name that is no entry of a zoo.
        """
        if not (self.entry / CONFIG).exists():
            return set()
        _, facts = read_facts(self.entry)
        if facts.zoo is None or facts.epochs != self.epochs:
            return set()
        return {_repetition(run) for run in facts.zoo.runs}


def _repetition(run: EntryRun) -> Repetition:
    seed, order, fold = (
        "" if value is None else str(value) for value in (run.seed, run.class_order, run.fold)
    )
    return seed, order, fold


def repetition_of(cell: Cell) -> Repetition:
    """What its words say of seed, class order and fold.

    >>> words = ("method=simclr", "seed=2", "data.fold=3")
    >>> repetition_of(Cell("x", Path("."), "pretrain", words, "cpu"))
    ('2', '', '3')
    """
    said = dict(word.partition("=")[::2] for word in cell.words)
    seed, order, fold = (said.get(key, "") for key in _REPEATS)
    return seed, order, fold


def read_family(path: Path) -> tuple[Family, Book]:
    """Read the file of a family, and the book of its cells with the family's arms in it.

    Raises:
        UserError: no such file, no YAML, a wrong key or value, a name that is none, an arm that
            both have, an arm or data set that is not there, or more pairs than the data has.
    """
    try:
        plain: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(plain, Mapping):
        raise UserError(f"{path}: expected a block with book, pairs and entries, got {plain!r}.")
    family = parse(Family, plain, "")
    book = read_book(path.parent / family.book)
    for name in sorted(set(family.arms) & set(book.arms)):
        raise UserError(f"{path}: arms.{name}: expected another name, {family.book} has this one.")
    book = dataclasses.replace(book, arms={**book.arms, **family.arms})
    for data, pairs in family.pairs.items():
        if data not in book.data:
            raise UserError(f"{path}: pairs: {unknown('data', data, book.data)}")
        if pairs > len(book.data[data].pairs):
            raise UserError(
                f"{path}: pairs.{data}: expected at most {len(book.data[data].pairs)}, which "
                f"{family.book} has, got {pairs}."
            )
    for name, member in family.entries.items():
        require_name(name)
        for kind, one, known in (
            ("data", member.data, family.pairs),
            ("arm", member.arm, book.arms),
        ):
            if one not in known:
                raise UserError(f"{path}: entries.{name}: {unknown(kind, one, known)}")
        if book.arms[member.arm].stage != "pretrain":
            raise UserError(
                f"{path}: entries.{name}.arm: expected a pretraining, got {member.arm}, which is "
                f"a second stage. Take {book.arms[member.arm].of}."
            )
    return family, book


def plan_family(family: Family, book: Book, setting: Setting, zoo: Path) -> list[Plan]:
    """The entries in the file's order.

    Args:
        family, book: as :func:`read_family` gives them.
        setting: of the cells; its ``pairs`` and ``epochs`` take the place of the file's.
        zoo: the folder of the entries.
    """
    found = []
    for name, member in family.entries.items():
        side = member.arm, setting.epochs or member.epochs
        count = len(book.data[member.data].pairs)
        cells = [make_cell(book, member.data, side, pair, setting) for pair in range(count)]
        pairs = min(count, setting.pairs or family.pairs[member.data])
        found.append(Plan(name, tuple(cells), pairs, zoo / name, side[1], member.half))
    return found
