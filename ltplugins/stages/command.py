# SPDX-License-Identifier: MIT
"""A command line of Hydra's form, taken apart: config, overrides, options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from ltplugins.core.errors import UserError

PACKAGED = "pkg://ltplugins.conf"


@dataclass(frozen=True)
class Command:
    """What a user has typed.

    Attributes:
        config_path: an absolute folder or ``pkg://...``.
        config_name: of the file, or several with commas between them.
        words: the overrides, ``key=value``.
        multirun: whether ``--multirun`` is among them.
        config_dir: a further folder of configs, as it was given.
        flags: Hydra's other options (``--help``, ``--cfg``), whose answers are Hydra's own.
    """

    config_path: str
    config_name: str
    words: tuple[str, ...]
    multirun: bool
    flags: tuple[str, ...]
    config_dir: str | None = None


def read_command(arguments: Sequence[str], config_name: str) -> Command:
    """Take a command line apart.

    Args:
        arguments: without the program's name.
        config_name: where ``--config-name`` is not given.

    Raises:
        UserError: an option that Hydra does not have, or one without its value.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    given = vars(parser.parse_intermixed_args(list(arguments)))
    path = given.pop("config_path") or PACKAGED
    name = given.pop("config_name") or config_name
    words, multirun = given.pop("overrides"), given.pop("multirun")
    given.pop("run")  # says what happens without it
    if given.get("resolve") and not (given.get("cfg") or given.get("help")):
        raise UserError("--resolve goes with --cfg job alone. Leave it out, or add --cfg job.")
    flags = tuple(f"--{key.replace('_', '-')}" for key, value in given.items() if value)
    return Command(absolute(path), name, tuple(words), multirun, flags, given.get("config_dir"))


def absolute(path: str) -> str:
    """A folder as seen from the working folder, as solo-learn's users expect."""
    return path if path.startswith("pkg://") else str(Path(path).resolve())


def quote(text: str) -> str:
    """Quote a value for Hydra, whose grammar stops at "=", "," and blanks."""
    escaped = text.replace("'", r"\'")
    return f"'{escaped}'"


def quote_run(word: str) -> str:
    """Quote the path in ``run=PATH``; other words are left as they are."""
    key, _, path = word.partition("=")
    return word if key != "run" or path[:1] in ("'", '"') else f"run={quote(path)}"


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}. Expected key=value and Hydra's options, such as --config-name.")
