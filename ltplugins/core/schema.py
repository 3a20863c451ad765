# SPDX-License-Identifier: MIT
"""Typed config sections: a dataclass says which keys and types are valid, this checks a mapping.

OmegaConf's own structured configs refuse unknown keys too, but solo-learn turns struct mode off and
its messages do not name the nearest valid key, so the check is done here, once, at the border.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from ltplugins.core.errors import UserError, nearest

T = TypeVar("T")


def parse(cls: type[T], section: Mapping[str, Any] | None, path: str) -> T:
    """Build dataclass ``cls`` from ``section``; nested dataclasses are parsed in turn.

    Args:
        cls: the dataclass with the valid keys, their types and their defaults.
        section: a plain mapping or a DictConfig; ``None`` means all defaults.
        path: where the section stands in the YAML, for messages ("method_kwargs.gh").

    Raises:
        UserError: an unknown key (with the nearest valid one), a wrong type, a missing key.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    section = {} if section is None else section
    if not isinstance(section, Mapping):
        raise UserError(f"{path}: expected a block of keys, got {section!r}.")
    for key in section:
        if key not in fields:
            raise UserError(
                f"unknown key '{path}.{key}'.{nearest(str(key), fields)} "
                f"Valid keys of {path}: {', '.join(fields)}."
            )
    values = {k: _check(section[k], hints[k], f"{path}.{k}") for k in section}
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in values:
            raise UserError(f"{path}.{name} is missing; it has no default. Set it in the YAML.")
    return cls(**values)


def _check(value: Any, hint: Any, path: str) -> Any:
    """Return ``value`` as the hinted type (an int serves as a float), or raise a UserError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None  # not "all defaults" of a section that may be absent
        for option in args:
            try:
                return _check(value, option, path)
            except UserError:
                if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
                    raise  # the message about the key inside says more than "expected a block"
        raise _wrong(value, hint, path)
    if origin is Literal:
        if value not in args:
            options = ", ".join(str(a) for a in args)
            raise UserError(
                f"{path}: expected one of {options}; got {value!r}.{nearest(str(value), args)}"
            )
        return value
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), value, path)
    if hint is type(None):
        if value in (None, "None", "null"):
            return None
        raise _wrong(value, hint, path)
    if origin is list:
        if isinstance(value, str) or not hasattr(value, "__iter__") or isinstance(value, Mapping):
            raise _wrong(value, hint, path)
        return [_check(v, args[0], f"{path}[{i}]") for i, v in enumerate(value)]
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise _wrong(value, hint, path)
        return dict(value)
    return _check_scalar(value, hint, path)


def _check_scalar(value: Any, hint: type, path: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 1e-4 (no dot) as text, and solo-learn's files are written that way.
        try:
            return float(value)
        except ValueError:
            raise _wrong(value, hint, path) from None
    if isinstance(value, bool) and hint is not bool:
        raise _wrong(value, hint, path)
    if not isinstance(value, hint):
        raise _wrong(value, hint, path)
    return value


def _wrong(value: Any, hint: Any, path: str) -> UserError:
    expected = getattr(hint, "__name__", None) if not typing.get_args(hint) else None
    return UserError(
        f"{path}: expected {expected or hint}, got {value!r} ({type(value).__name__})."
    )
