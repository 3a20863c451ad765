# SPDX-License-Identifier: MIT
"""The file of the claims: data sets with their pairs, arms, and which arm is said to beat which."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from ltplugins.core.errors import UserError, unknown
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import Section, parse

Epochs = Annotated[int, AtLeast(1)]
PROTOCOLS = ("knn", "linear", "linear_lt", "classifier")
GROUPS = ("overall", "balanced", "many", "medium", "few")


@dataclass(frozen=True)
class ClaimData(Section):
    """Images that claims are tested on.

    Attributes:
        words: of ``ltplugins pretrain``.
        pairs: further words, one line a pair; the arms of a claim are compared pair by pair.
    """

    words: list[str]
    pairs: list[str]


@dataclass(frozen=True)
class Arm(Section):
    """One side of a comparison.

    Attributes:
        words: of its stage.
        stage: what trains it.
        of: another arm, trained before on the same pair; ``{of}`` in the words is its folder, and
            ``balance`` takes it as its run.
    """

    words: list[str]
    stage: Literal["pretrain", "balance"] = "pretrain"
    of: str | None = None

    def refusals(self) -> Iterator[tuple[str, str]]:
        """A second stage has a first."""
        if self.stage == "balance" and self.of is None:
            yield "of", "the arm whose classifier is balanced"


@dataclass(frozen=True)
class Measure(Section):
    """A number of both arms.

    Attributes:
        protocol: of ours, by its kind.
        group: of classes, by tercile of their training images; or overall, balanced.
        base_protocol: of the base's number.
    """

    protocol: Literal["knn", "linear", "linear_lt", "classifier"]
    group: Literal["overall", "balanced", "many", "medium", "few"]
    base_protocol: Literal["knn", "linear", "linear_lt", "classifier"]

    @classmethod
    def from_scalar(cls, text: str) -> "Measure":
        """Read ``knn few`` or ``classifier/linear_lt few``.

        >>> Measure.from_scalar("classifier/linear_lt few").base_protocol
        'linear_lt'
        """
        protocols, _, group = text.partition(" ")
        protocol, _, base = protocols.partition("/")
        for name in filter(None, (protocol, base)):
            if name not in PROTOCOLS:
                raise unknown("protocol", name, PROTOCOLS)
        if group not in GROUPS:
            raise unknown("group of classes", group, GROUPS)
        return cls(protocol, group, base or protocol)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """As the file has it."""
        base = "" if self.base_protocol == self.protocol else f"/{self.base_protocol}"
        return f"{self.protocol}{base} {self.group}"


@dataclass(frozen=True)
class Claim(Section):
    """That one arm beats another.

    Attributes:
        name: for tables and the command line.
        statement: in words; it holds where the difference "ours minus base" is above 0, or with
            ``direction: lower`` below.
        paper: that says so.
        data, ours, base: names of the file's other blocks.
        epochs, base_epochs: of ours and of the base; null: the same.
        equal: what of the two trainings is equal; ``epochs`` where an arm has a training more.
        measures: each gets a verdict of its own.
    """

    name: str
    statement: str
    paper: str
    data: str
    ours: str
    base: str
    epochs: Epochs
    measures: list[Measure]
    equal: Literal["steps", "cost", "epochs"] = "steps"
    base_epochs: Epochs | None = None
    direction: Literal["higher", "lower"] = "higher"

    def refusals(self) -> Iterator[tuple[str, str]]:
        """The two sides are not the same."""
        if self.ours == self.base and self.epochs == (self.base_epochs or self.epochs):
            yield "base", "another arm than ours, or other epochs"

    def sides(self, longest: int | None = None) -> tuple[tuple[str, int], tuple[str, int]]:
        """Ours and the base, each with its epochs.

        Args:
            longest: epochs of the longer one, for a trial; the other keeps its share of them.
        """
        planned = (self.epochs, self.base_epochs or self.epochs)
        most = max(planned)
        ours, base = (n if longest is None else max(1, round(longest * n / most)) for n in planned)
        return (self.ours, ours), (self.base, base)


@dataclass(frozen=True)
class Book(Section):
    """The whole file; ``common`` are words of every pretraining."""

    data: dict[str, ClaimData]
    arms: dict[str, Arm]
    claims: list[Claim]
    common: list[str] = field(default_factory=list)

    def refusals(self) -> Iterator[tuple[str, str]]:
        """Names that are given once."""
        names = [claim.name for claim in self.claims]
        if len(set(names)) < len(names):
            yield "claims", "claims of different names"

    def chosen(self, names: list[str] | None) -> list[Claim]:
        """The claims of these names, in the file's order; None = all.

        Raises:
            UserError: a name that the file does not have.
        """
        known = [claim.name for claim in self.claims]
        for name in names or ():
            if name not in known:
                raise unknown("claim", name, known)
        return [claim for claim in self.claims if names is None or claim.name in names]


def read_book(path: str | Path) -> Book:
    """Read the file of the claims.

    Raises:
        UserError: no such file, no YAML, a wrong key or value, an arm or data set that is not
            there.
    """
    try:
        plain: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(plain, Mapping):
        raise UserError(f"{path}: expected a block with data, arms and claims, got {plain!r}.")
    book = parse(Book, plain, "")
    for claim in book.claims:
        for kind, name, known in (
            ("data", claim.data, book.data),
            ("arm", claim.ours, book.arms),
            ("arm", claim.base, book.arms),
        ):
            if name not in known:
                raise UserError(f"claims.{claim.name}: {unknown(kind, name, known)}")
    for name, arm in book.arms.items():
        if arm.of is not None and (arm.of not in book.arms or book.arms[arm.of].of is not None):
            raise UserError(
                f"arms.{name}.of: expected an arm that follows no other, got '{arm.of}'."
            )
    return book
