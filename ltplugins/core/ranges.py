# SPDX-License-Identifier: MIT
"""Ranges that stand beside a type: ``temperature: Annotated[float, Above(0)] = 0.1``.

``ltplugins.core.schema`` checks them; each says in words what it expects.
"""

import dataclasses
import math
from typing import Annotated, Any, Protocol, runtime_checkable


@runtime_checkable
class Constraint(Protocol):
    """What ``Annotated`` says of a value beyond its type."""

    def holds(self, value: Any) -> bool:
        """Whether a value of the right type is valid."""

    def expected(self, what: str) -> str:
        """The valid values in words; ``what`` is the type's ("a number")."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two ends; ``None`` is no end. See the functions below for the usual ones."""

    low: float | None = None
    high: float | None = None
    low_included: bool = True
    high_included: bool = True
    also: float | None = None  # a number outside that says something else, such as -1 for all

    def holds(self, value: Any) -> bool:
        """Whether ``value`` lies inside; NaN lies nowhere."""
        if self.also is not None and value == self.also:
            return True
        if self.low is not None:
            above = value >= self.low if self.low_included else value > self.low
            if not above:
                return False
        if self.high is not None:
            return value <= self.high if self.high_included else value < self.high
        return not math.isnan(value)

    def expected(self, what: str) -> str:
        """Such as "a number above 0", "a number of 0 or more and below 1"."""
        return f"{what} {self.ends()}" + ("" if self.also is None else f", or {_number(self.also)}")

    def ends(self) -> str:
        """Such as "above 0", "of 0 or more and below 1", "from 0 to 1"."""
        low, high = (None if end is None else _number(end) for end in (self.low, self.high))
        if self.low_included and self.high_included and low and high:
            return f"from {low} to {high}"
        lower = f"of {low} or more" if self.low_included else f"above {low}"
        upper = f"of at most {high}" if self.high_included else f"below {high}"
        ends = [text for end, text in ((low, lower), (high, upper)) if end is not None]
        return " and ".join(ends)


def Above(low: float) -> Range:
    """Numbers above ``low``."""
    return Range(low=low, low_included=False)


def AtLeast(low: float, also: float | None = None) -> Range:
    """Numbers of ``low`` or more."""
    return Range(low=low, also=also)


def Within(low: float, high: float) -> Range:
    """Numbers from ``low`` to ``high``, both included."""
    return Range(low, high)


def Between(low: float, high: float, also: float | None = None) -> Range:
    """Numbers above ``low`` and below ``high``."""
    return Range(low, high, False, False, also)


def UpTo(low: float, high: float) -> Range:
    """Numbers above ``low`` and at most ``high``."""
    return Range(low, high, low_included=False)


def Below(low: float, high: float) -> Range:
    """Numbers of ``low`` or more and below ``high``."""
    return Range(low, high, high_included=False)


@dataclasses.dataclass(frozen=True)
class Length:
    """Lists of a number of elements."""

    least: int
    most: float | None = None  # None: exactly ``least``

    def holds(self, value: Any) -> bool:
        """Whether the list has as many."""
        return self.least <= len(value) <= (self.least if self.most is None else self.most)

    def expected(self, what: str) -> str:
        """Such as "a list of 3 numbers", "a list of 1 or more numbers"."""
        count = f"{self.least}"
        if self.most is not None:
            count += " or more" if math.isinf(self.most) else f" to {self.most}"
        return what.replace("a list of", f"a list of {count}", 1)


@dataclasses.dataclass(frozen=True)
class FolderName:
    """Texts that name a folder within another one."""

    def holds(self, value: Any) -> bool:
        """Whether no part is empty, blank at an end, or leads out of the folder."""
        parts = str(value).split("/")
        return all(part == part.strip() and part not in ("", ".", "..") for part in parts)

    def expected(self, what: str) -> str:
        """Such as "text that names a folder (not blank, without '..')"."""
        return f"{what} that names a folder (not blank, without '..' and a '/' in front)"


@dataclasses.dataclass(frozen=True)
class Note:
    """Words after the range for values that are often mistaken; it refuses nothing."""

    text: str

    def holds(self, value: Any) -> bool:
        """A note refuses no value."""
        return True

    def expected(self, what: str) -> str:
        """Such as "a number of 1 or more (100, not 0.01)"."""
        return f"{what} ({self.text})"


def _number(end: float) -> str:
    return str(int(end)) if float(end).is_integer() else f"{end:g}"


# What NumPy, scikit-learn and Lightning all take as a seed.
Seed = Annotated[int, Within(0, 2**32 - 1)]
