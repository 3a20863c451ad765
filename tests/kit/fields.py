# SPDX-License-Identifier: MIT
"""The numbers in a dataclass of options, wherever they stand, and values outside their ranges."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Union

from ltplugins.core.ranges import Length, Range


@dataclass(frozen=True)
class Number:
    """A number of a section.

    Attributes:
        key: of the section's field that holds it, dotted where sections are nested.
        kind: int or float.
        range: None where any number is taken.
        elements: 0, or how many the list has that it is an element of.
        share: it may be said as a share of a whole ("50%"), too.
    """

    key: str
    kind: type
    range: Range | None = None
    elements: int = 0
    share: bool = False

    @property
    def said(self) -> str:
        """The key as a message names it."""
        return f"{self.key}[0]" if self.elements else self.key

    def outside(self) -> list[Any]:
        """Values of the right type just outside either end, and far outside."""
        assert self.range is not None, f"{self.key} has no range"
        step = 1 if self.kind is int else 1e-3
        ends = [(self.range.low, self.range.low_included, -1)]
        ends.append((self.range.high, self.range.high_included, 1))
        values = []
        for end, included, away in ends:
            if end is not None:
                nearest = end + away * step if included else end
                values += [self.kind(nearest), self.kind(end + 7 * away)]
        values = [value for value in values if value != self.range.also]
        values += ["-1%"] if self.share else []
        if self.elements:
            return [[value] * self.elements for value in values]
        return [*values, float("nan")] if self.kind is float else values


def numbers(cls: type, prefix: str = "") -> Iterator[Number]:
    """Every number of a dataclass: alone, in lists, as an alternative, in nested sections."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if field.init:
            key = f"{prefix}.{field.name}" if prefix else field.name
            yield from _numbers(hints[field.name], key)


def _numbers(hint: Any, key: str) -> Iterator[Number]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        yield from _within(list(_numbers(args[0], key)), args[1:])
    elif origin in (Union, types.UnionType):
        for option in args:
            yield from _numbers(option, key)
    elif origin is list:
        for number in _numbers(args[0], key):
            yield replace(number, elements=1)
    elif dataclasses.is_dataclass(hint):
        yield from numbers(typing.cast(type, hint), key)
    elif hint in (int, float):
        yield Number(key, hint)


def _within(found: list[Number], constraints: tuple[Any, ...]) -> Iterator[Number]:
    for number in found:
        for constraint in constraints:
            if isinstance(constraint, Range):
                number = replace(number, range=constraint)
            elif isinstance(constraint, Length):
                number = replace(number, elements=constraint.least)
            elif isinstance(getattr(constraint, "numbers", None), Range):
                number = replace(number, range=constraint.numbers, share=True)
        yield number
