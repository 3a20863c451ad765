# SPDX-License-Identifier: MIT
"""A stored config says what it says: nothing in it is looked up where it is opened."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ltplugins.core.errors import UserError
from ltplugins.core.records import require_shallow


def refuse_interpolations(stored: Any, where: str) -> None:
    """Refuse a config from a file that is not the user's own, where it asks for a value.

    Runs store what their config was resolved to. What still has ``${...}`` in it was written by
    others, and OmegaConf would put this machine's value there: ``${oc.env:TOKEN}`` ends in
    results that are given away.

    Args:
        stored: nested plain values.
        where: the file, for the message.

    Raises:
        UserError: the first key with an interpolation, or blocks that are nested without end.
    """
    require_shallow(stored, where)
    for key, value in _interpolated(stored, ""):
        raise UserError(
            f"{where}: {key}: expected a plain value, got the interpolation {value[:60]!r}, which "
            f"no run stores. Whoever wrote it may be after this machine's values: do not trust it."
        )


def _interpolated(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if "${" in value:
            yield path or "the whole", value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            name = f"{path}.{key}" if path else str(key)
            if "${" in str(key):
                yield name, str(key)
            yield from _interpolated(inner, name)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for number, inner in enumerate(value):
            yield from _interpolated(inner, f"{path}[{number}]")
