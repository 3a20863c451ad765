# SPDX-License-Identifier: MIT
"""A value outside its range is refused by one sentence: key, expected, got, way out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import (
    Above,
    AtLeast,
    Below,
    Between,
    Length,
    Note,
    Seed,
    UpTo,
    Within,
)
from ltplugins.core.schema import OutOfRange, Section, WrongType, describe, parse


@dataclass
class Inner(Section):
    share: Annotated[float, Within(0, 1)] = 0.5


@dataclass
class Options(Section):
    name: str
    temperature: Annotated[float, Above(0)] = 0.1
    size: Annotated[int, AtLeast(1)] | None = None
    momentum: Annotated[float, Below(0, 1)] = 0.9
    ratio: Annotated[float, UpTo(0, 1)] = 1.0
    open: Annotated[float, Between(0, 1)] = 0.5
    mean: Annotated[list[Annotated[float, Within(0, 1)]], Length(3)] | None = None
    count: Annotated[int, AtLeast(0)] | Literal["all"] = "all"
    low: float = 0.0
    high: float = 1.0
    topk: Annotated[int, AtLeast(1)] | Annotated[float, UpTo(0, 1)] = 10
    fraction: Annotated[float, Between(0, 1, also=-1)] = -1.0
    factor: Annotated[float, AtLeast(1), Note("100, not 0.01")] = 100.0
    shots: Annotated[list[Annotated[int, AtLeast(1)] | Literal["full"]], Length(1, math.inf)] = (
        field(default_factory=lambda: [100, "full"])
    )
    seed: Seed = 0
    inner: Inner = field(default_factory=Inner)

    def refusals(self) -> Iterator[tuple[str, str]]:
        if not self.low <= self.high:
            yield "low", f"a number of at most high ({self.high:g})"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"temperature": 0}, "o.temperature: expected a number above 0, got 0. Set it to a "
         "value in that range; without the key it is 0.1."),
        ({"temperature": float("nan")}, "o.temperature: expected a number above 0, got nan"),
        ({"temperature": float("inf")}, "o.temperature: expected a number above 0, got inf"),
        ({"size": 0}, "o.size: expected a whole number of 1 or more, got 0."),
        ({"momentum": 1}, "o.momentum: expected a number of 0 or more and below 1, got 1."),
        ({"momentum": -0.1}, "o.momentum: expected a number of 0 or more and below 1, got -0.1."),
        ({"ratio": 0}, "o.ratio: expected a number above 0 and of at most 1, got 0."),
        ({"open": 1}, "o.open: expected a number above 0 and below 1, got 1."),
        ({"mean": [0.1, 0.2]}, "o.mean: expected a list of 3 numbers from 0 to 1, got [0.1, 0.2]."),
        ({"mean": [0.1, 0.2, 2]}, "o.mean[2]: expected a number from 0 to 1, got 2."),
        ({"count": -1}, "o.count: expected a whole number of 0 or more, got -1."),
        ({"mean": [0.1, 0.2, 2]}, "o.mean[2]: expected a number from 0 to 1, got 2. Set it to a "
         "value in that range; without the key it is null."),
        ({"topk": 0}, "o.topk: expected a whole number of 1 or more or a number above 0 and of at "
         "most 1, got 0. Set it to a value in that range; without the key it is 10."),
        ({"topk": 1.5}, "o.topk: expected a whole number of 1 or more or a number above 0"),
        ({"fraction": 0}, "o.fraction: expected a number above 0 and below 1, or -1, got 0."),
        ({"factor": 0.01}, "o.factor: expected a number of 1 or more (100, not 0.01), got 0.01."),
        ({"shots": []}, "o.shots: expected a list of 1 or more values, each a whole number of 1 or "
         "more or 'full', got []."),
        ({"shots": [0]}, "o.shots[0]: expected a whole number of 1 or more, got 0."),
        ({"seed": 2**32}, "o.seed: expected a whole number from 0 to 4294967295, got 4294967296."),
        ({"inner": {"share": 2}}, "o.inner.share: expected a number from 0 to 1, got 2."),
        ({"low": 2.0}, "o.low: expected a number of at most high (1), got 2.0."),
        ({"size": 1.5}, "o.size: expected a whole number of 1 or more or null, got 1.5 (float). "
         "Set it to such a value; without the key it is null."),
        ({"inner": 3}, "o.inner: expected a block of keys, got 3"),
    ],
)  # fmt: skip
def test_refused_by_one_sentence(given, text):
    with pytest.raises(UserError) as error:
        parse(Options, {"name": "x", **given}, "o")
    assert str(error.value).startswith(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 1e-9},
        {"temperature": "1e-4"},
        {"size": None},
        {"size": 1},
        {"momentum": 0},
        {"ratio": 1},
        {"mean": [0, 1, 0.5]},
        {"count": "all"},
        {"count": 0},
        {"topk": 1.0},
        {"fraction": -1},
        {"shots": ["full"]},
        {"low": 1.0},
    ],
)
def test_the_ends_that_belong_to_a_range_are_taken(given):
    parse(Options, {"name": "x", **given}, "o")


def test_the_top_level_has_no_prefix():
    with pytest.raises(OutOfRange, match=r"^temperature: expected"):
        parse(Options, {"name": "x", "temperature": 0}, "")
    with pytest.raises(UserError, match=r"^unknown key 'temprature'. Did you mean 'temperature'\?"):
        parse(Options, {"name": "x", "temprature": 0}, "")


def test_a_type_in_words():
    assert describe(int | float | str) == "a number or text"
    assert describe(Literal["a", "b"]) == "one of a, b"
    assert describe(list[int]) == "a list of whole numbers"


def test_python_is_held_to_the_same():
    with pytest.raises(OutOfRange, match=r"^Options.temperature: expected .* above 0, got 0\. Set"):
        Options("x", temperature=0)
    with pytest.raises(OutOfRange, match=r"^Options.low: expected a number of at most high \(1\)"):
        Options("x", low=2.0)
    with pytest.raises(WrongType, match=r"^Options.name: expected text, got 3"):
        Options(3)  # type: ignore[arg-type]
    with pytest.raises(OutOfRange, match=r"^Inner.share: expected a number from 0 to 1, got 2"):
        Options("x", inner=Inner(2))
