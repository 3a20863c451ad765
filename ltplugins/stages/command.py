# SPDX-License-Identifier: MIT
"""A command line of Hydra's form, taken apart: config, overrides, options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

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


def parse_words(words: Sequence[str]) -> list[Override]:
    """Read overrides by Hydra's grammar; a value that it cannot read is taken as text.

    Its grammar stops at letters beyond ASCII, blanks with brackets, "~", "=": all are common in
    paths. Where a list, a sweep or a quoted text may be meant, the word is refused.

    Raises:
        UserError: a word that it cannot read.
    """
    return [_parse_word(OverridesParser.create(), word) for word in words]


def _parse_word(parser: OverridesParser, word: str) -> Override:
    key, is_there, value = word.partition("=")
    is_text = is_there and value[:1] not in "[{('\"" and "," not in value and "${" not in value
    for attempt in [word, f"{key}={quote(value)}"] if is_text else [word]:
        try:
            return parser.parse_overrides([attempt])[0]
        except HydraException:
            continue
    quoted = f': "{key}={quote(value)}"' if is_there else ""
    raise UserError(
        f"cannot read '{word}': expected key=value. A value with commas, brackets or quotes in it "
        f"needs quotes of its own{quoted}."
    )


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
