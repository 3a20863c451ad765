# SPDX-License-Identifier: MIT
"""JSON files with a schema: a frozen dataclass says what is in them, a number which form it is.

A file without a number is of the first form. A field that is None is left out where None is its
default, so that a file holds what is known and nothing else. What fields must be to each other is
said by a method ``faults`` of the dataclass, or of one within it.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from ltplugins.core.errors import UserError
from ltplugins.core.files import write_json
from ltplugins.core.schema import parse

T = TypeVar("T")
_DEEPEST = 64  # blocks within each other; a config has six


class NewerForm(UserError):
    """A file of a form that a later version of this package writes."""


class Record:
    """Base of a file's dataclass, which has a field ``version``; ``FORM`` is the newest form."""

    FORM: ClassVar[int]

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the file.

        Raises:
            UserError: it is absent, damaged, or of a newer form.
        """
        return read_record(cls, path, cls.FORM)

    def write(self, path: str | Path) -> None:
        """Write the file in the newest form, whole or not at all."""
        write_json(path, {**to_plain(self), "version": self.FORM})


def to_plain(record: Any) -> Any:
    """A record as plain values for JSON."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        fields = [(f, getattr(record, f.name)) for f in dataclasses.fields(record)]
        return {f.name: to_plain(v) for f, v in fields if v is not None or f.default is not None}
    if isinstance(record, Mapping):
        return {key: to_plain(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_plain(value) for value in record]
    return record


def from_plain(cls: type[T], content: Any, path: str | Path, version: int) -> T:
    """A record from plain values.

    Args:
        cls: the dataclass.
        content: what the file holds.
        path: of the file, for the message.
        version: the newest form that is known.

    Raises:
        NewerForm: a newer form.
        UserError: something that is none.
    """
    if not isinstance(content, Mapping):  # null too: it is not a block without keys
        raise UserError(
            f"{path} is damaged, or of another program: expected a block of keys, got "
            f"{content!r:.60}."
        )
    found = content.get("version", 1)
    if isinstance(found, int) and found > version:
        raise NewerForm(
            f"{path} is of form {found}, and this version of ltplugins knows forms up to "
            f"{version}. Update ltplugins."
        )
    if "version" in getattr(cls, "__dataclass_fields__", {}):
        content = {"version": 1, **content}
    try:
        record = parse(cls, content, "")
        for fault in _faults(record):
            raise UserError(fault)
    except UserError as error:
        raise UserError(f"{path} is damaged, or of another program: {error}") from None
    return record


def _faults(value: Any) -> Iterator[str]:
    """What parts of a record say of fields that do not go together, by their method ``faults``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _faults(getattr(value, field.name))
        if hasattr(value, "faults"):
            yield from value.faults()
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _faults(inner)
    elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
        for inner in value:
            yield from _faults(inner)


def read_record(cls: type[T], path: str | Path, version: int) -> T:
    """Read a record's file.

    Raises:
        UserError: no such file, no JSON, or see :func:`from_plain`.
    """
    return from_plain(cls, read_json(path), path, version)


def read_json(path: str | Path) -> Any:
    """The plain values of a JSON file.

    Raises:
        UserError: it is absent, no text, or no JSON.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: it is no JSON ({error}).") from None
    return parse_json(text, path)


def parse_json(text: str, where: str | Path) -> Any:
    """The plain values of a JSON text.

    Raises:
        UserError: it is none.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is damaged: it is no JSON ({error}).") from None
    except RecursionError:
        raise _endless(where) from None
    require_shallow(content, where)
    return content


def require_shallow(content: Any, where: str | Path) -> None:
    """Refuse blocks within blocks that are deeper than any of ours: whoever walks them would fail.

    Raises:
        UserError: see above.
    """
    level = [content]
    for _ in range(_DEEPEST):
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            return
    raise _endless(where)


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _endless(where: str | Path) -> UserError:
    return UserError(
        f"{where} is damaged: its brackets are nested without end, expected at most {_DEEPEST} "
        f"within each other."
    )
