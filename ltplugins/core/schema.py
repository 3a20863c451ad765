# SPDX-License-Identifier: MIT
"""Typed config sections: a dataclass says which keys, types and ranges are valid.

A range stands beside its type, ``temperature: Annotated[float, Above(0)] = 0.1``, and is checked
here with the type, once, at the border. OmegaConf's own structured configs refuse unknown keys too,
but solo-learn turns struct mode off, and their messages name neither nearest key nor range.

A section is a dataclass on :class:`Section`, so that Python's own calls are held to the same. What
two of its fields must be to each other is said by its method ``refusals``. A section with a
classmethod ``from_scalar`` may also be given as text: ``sampler: shuffle`` for
``sampler: {name: shuffle}``.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union

from ltplugins.core.errors import UserError, nearest
from ltplugins.core.ranges import Constraint

T = TypeVar("T")
MISSING = dataclasses.MISSING
_LARGEST = 2**63 - 1  # that NumPy and torch have
_KNOWN_HINTS: dict[type, dict[str, Any]] = {}


class WrongType(UserError):
    """A value of another type than its key's."""


class OutOfRange(UserError):
    """A value of the right type that lies outside its range."""


class Section:
    """Base of a section's dataclass: built in Python, it is held to its types and ranges as well.

    Raises:
        WrongType, OutOfRange: on construction, in the sentence that a config's block gets.
    """

    def __post_init__(self) -> None:
        path = type(self).__name__
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            if not isinstance(value, Section):  # which has been looked at
                object.__setattr__(self, name, _check_field(self, name, value, hint, path))
        for name, expected in self.refusals():
            raise OutOfRange(f"{path}.{name}: expected {expected}, got {getattr(self, name)!r}.")

    def refusals(self) -> Iterator[tuple[str, str]]:
        """Fields that are wrong because of other fields, each with what is expected."""
        return iter(())


def _hints(cls: type) -> dict[str, Any]:
    """The fields' types, with their ranges; remembered, as sections are built in training too."""
    known = _KNOWN_HINTS.get(cls)
    if known is None:
        known = _KNOWN_HINTS[cls] = typing.get_type_hints(cls, include_extras=True)
    return known


def _check_field(section: Any, name: str, value: Any, hint: Any, path: str) -> Any:
    """Check one field, its way out included."""
    where = _join(path, name)
    try:
        return check(value, hint, where)
    except (OutOfRange, WrongType) as error:
        # Not of a key further in, which has said it.
        if str(error).startswith((f"{where}:", f"{where}[")):
            field = next(f for f in dataclasses.fields(section) if f.name == name)
            raise type(error)(f"{error}{_way_out(field, error)}") from None
        raise


def parse(cls: type[T], section: Mapping[str, Any] | None, path: str) -> T:
    """Build dataclass ``cls`` from ``section``; nested dataclasses are parsed in turn.

    Args:
        cls: the dataclass with the valid keys, their types, ranges and defaults.
        section: a plain mapping or a DictConfig; ``None`` means all defaults.
        path: where the section stands in the YAML, for messages ("method_kwargs.gh"); empty for the
            top level.

    Raises:
        UserError: an unknown key (with the nearest valid one), a wrong type, a value outside its
            range, a missing key.
    """
    hints = _hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    section = {} if section is None else section
    if not isinstance(section, Mapping):
        raise UserError(f"{path}: expected a block of keys, got {section!r}.")
    for key in section:
        if key not in fields:
            raise UserError(
                f"unknown key '{_join(path, key)}'.{nearest(str(key), fields)} "
                f"Valid keys{f' of {path}' if path else ''}: {', '.join(fields)}."
            )
    values = {k: _check_field(cls, k, section[k], hints[k], path) for k in section}
    for name, field in fields.items():
        if default_of(field) is MISSING and name not in values:
            raise UserError(
                f"{_join(path, name)} is missing; it has no default: expected "
                f"{describe(hints[name])}. Set it in the YAML."
            )
    return _renamed(cls, lambda: cls(**values), path)


def _renamed(cls: type, build: Callable[[], T], path: str) -> T:
    """Build a section; what it says of its own fields is said of the keys at ``path``."""
    try:
        return build()
    except UserError as error:
        raise type(error)(_join(path, str(error).removeprefix(f"{cls.__name__}."))) from None


def check(value: Any, hint: Any, path: str) -> Any:
    """Return ``value`` as the hinted type (an int serves as a float).

    Raises:
        WrongType: another type.
        OutOfRange: the right type, outside its range.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        try:
            checked = check(value, args[0], path)
        except WrongType as error:
            if str(error).startswith(f"{path}:"):
                raise _wrong(value, hint, path) from None  # in the words of the range, too
            raise
        for constraint in args[1:]:
            if isinstance(constraint, Constraint) and not constraint.holds(checked):
                raise OutOfRange(f"{path}: expected {describe(hint)}, got {value!r}.")
        return checked
    if origin in (Union, types.UnionType):
        return _check_union(value, hint, path)
    if origin is Literal:
        if value not in args:
            options = ", ".join(str(a) for a in args)
            raise UserError(
                f"{path}: expected one of {options}; got {value!r}.{nearest(str(value), args)}"
            )
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value  # of a section that was parsed with the one around it
        if isinstance(value, str) and hasattr(hint, "from_scalar"):
            scalar = typing.cast(Any, hint).from_scalar
            return _renamed(typing.cast(type, hint), lambda: scalar(value), path)
        return parse(typing.cast(type, hint), value, path)
    if hint is type(None):
        if value in (None, "None", "null"):
            return None
        raise _wrong(value, hint, path)
    if origin is list:
        if isinstance(value, str) or not hasattr(value, "__iter__") or isinstance(value, Mapping):
            raise _wrong(value, hint, path)
        return [check(v, args[0], f"{path}[{i}]") for i, v in enumerate(value)]
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise _wrong(value, hint, path)
        inner = args[1] if args else Any
        return {key: check(v, inner, _join(path, key)) for key, v in value.items()}
    return _check_scalar(value, hint, path)


def _check_union(value: Any, hint: Any, path: str) -> Any:
    args = typing.get_args(hint)
    if value is None and type(None) in args:
        return None  # not "all defaults" of a section that may be absent
    outside: OutOfRange | None = None
    for option in args:
        try:
            return check(value, option, path)
        except OutOfRange as error:
            outside = outside or error
        except UserError:
            if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
                raise  # the message about the key inside says more than "expected a block"
    if outside is None:
        raise _wrong(value, hint, path)
    numeric = [option for option in args if option is not type(None) and is_number(option)]
    if len(numeric) > 1:  # each has its own range: say all
        expected = " or ".join(describe(option) for option in numeric)
        raise OutOfRange(f"{path}: expected {expected}, got {value!r}.")
    raise outside


def is_number(hint: Any) -> bool:
    """Whether the values of a hint are numbers: an int or a float, with a range or without."""
    if typing.get_origin(hint) is Annotated:
        return is_number(typing.get_args(hint)[0])
    return hint in (int, float)


def _check_scalar(value: Any, hint: type, path: str) -> Any:
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 1e-4 (no dot) as text, and solo-learn's files are written that way.
        try:
            value = float(value)
        except ValueError:
            raise _wrong(value, hint, path) from None
    if isinstance(value, bool) and hint is not bool:
        raise _wrong(value, hint, path)
    if hint is float and isinstance(value, int | float):
        if not math.isfinite(value):
            raise _wrong(value, hint, path)
        return float(value)
    if not isinstance(value, hint):
        raise _wrong(value, hint, path)
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise OutOfRange(f"{path}: expected a whole number of at most 64 bits, got {value!r:.30}.")
    return value


_WORDS = {
    float: "a number",
    int: "a whole number",
    str: "text",
    bool: "true or false",
    dict: "a block of keys",
    type(None): "null",
}
_PLURALS = {float: "numbers", int: "whole numbers", str: "texts"}


def describe(hint: Any) -> str:
    """A type and its range in words: "a number above 0", "one of all, cross_domain", "or null"."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        text = describe(args[0])
        for constraint in args[1:]:
            if isinstance(constraint, Constraint):
                text = constraint.expected(text)
        return text
    if origin in (Union, types.UnionType):
        kinds = [arg for arg in args if not (arg is int and float in args)]
        return " or ".join(dict.fromkeys(describe(kind) for kind in kinds))
    if origin is Literal:
        return f"one of {', '.join(str(a) for a in args)}" if len(args) > 1 else f"{args[0]!r}"
    if origin is list:
        return _describe_list(args[0])
    return _WORDS.get(origin or hint, "a block of keys" if hint is not Any else "any value")


def _describe_list(inner: Any) -> str:
    kind = typing.get_args(inner)[0] if typing.get_origin(inner) is Annotated else inner
    if kind in _PLURALS:
        return describe(inner).replace(_WORDS[kind], f"a list of {_PLURALS[kind]}", 1)
    return f"a list of values, each {describe(inner)}"


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """A field's default, or ``MISSING`` where there is none."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _way_out(field: "dataclasses.Field[Any]", error: UserError) -> str:
    range_or_type = "a value in that range" if isinstance(error, OutOfRange) else "such a value"
    default = default_of(field)
    if default is MISSING or dataclasses.is_dataclass(default):
        return f" Set it to {range_or_type}."
    shown = "null" if default is None else default
    return f" Set it to {range_or_type}; without the key it is {shown}."


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _wrong(value: Any, hint: Any, path: str) -> WrongType:
    return WrongType(f"{path}: expected {describe(hint)}, got {value!r} ({type(value).__name__}).")
