# SPDX-License-Identifier: MIT
"""The one error a user sees: what was expected, what came, and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Wrong input from outside: a config, a file, a folder. The CLI shows it alone."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest valid name, or an empty string."""
    match = get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""


def unknown(what: str, name: str, valid: Iterable[str]) -> UserError:
    """Build the error for a name that is not one of ``valid``."""
    names = sorted(str(v) for v in valid)
    return UserError(f"unknown {what} '{name}'.{nearest(name, names)} Valid: {', '.join(names)}.")


def first_sentence(error: BaseException) -> str:
    """What a library says went wrong; what it advises next is often to load a file unsafely."""
    line = (str(error).splitlines() or [""])[0]
    return line.partition(". ")[0].rstrip(".:")[:200]


def install(extra: str) -> str:
    """The command that brings an extra, run in the checkout: no index has this package."""
    return f'pip install -e ".[{extra}]"'
