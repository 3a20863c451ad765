# SPDX-License-Identifier: MIT
"""Consoles that show text as it is: no markup in it is obeyed, no line cut where no width is told.

Names of files, classes and runs come from elsewhere. ``[/b]`` in one is no end of bold letters, and
an escape character is no command to the terminal.
"""

import re
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

# C0 without tab and line feed, DEL, C1, marks that turn the direction of writing, and what stands
# for bytes that are no text.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class PlainConsole(Console):
    """A rich console that takes strings for text; styles are given apart from it.

    Whoever reads the pipe and leaves ends the program by the door, not by an exit of rich's.
    """

    def on_broken_pipe(self) -> None:
        """Rich's call, where it has caught the error."""
        raise

    def render_str(self, text: str, **kwargs: Any) -> Text:
        """Turn a string, also a table's cell, into text without control characters."""
        return super().render_str(printable(text), **kwargs)


def make_console(stderr: bool = False) -> Console:
    """A console; in a file or a pipe lines are as long as they are.

    There a table is 100 columns wide, or what its printer makes of ``width``; print it with
    ``soft_wrap=False``, for lines of text are not folded.
    """
    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream is not None and stream.isatty()  # None: closed, as by `>&-`
    _spell_out_unknown(stream)
    width = None if is_terminal else 100
    folds = not is_terminal
    return PlainConsole(stderr=stderr, width=width, soft_wrap=folds, markup=False, emoji=False)


def _spell_out_unknown(stream: Any) -> None:
    """Let a stream write what its encoding does not have as an escape, as stderr always does."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if not encoding.lower().startswith("utf") and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    r"""Spell out what a terminal would obey, and what no encoding has.

    >>> print(printable("\x1b[2Jcaf\udce9"))
    \x1b[2Jcaf\udce9
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def print_error(text: str) -> None:
    """The one line of a user's error, on standard error."""
    line = Text.assemble(("error:", "bold red"), " ", printable(" ".join(text.split())))
    make_console(stderr=True).print(line, highlight=False, soft_wrap=True)
