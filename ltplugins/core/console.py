# SPDX-License-Identifier: MIT
"""Consoles whose lines are not cut where there is no terminal to tell a width."""

import sys

from rich.console import Console


def make_console(stderr: bool = False) -> Console:
    """A rich console; in a file or a pipe lines are as long as they are.

    There a table is 100 columns wide, or what its printer makes of ``width``; print it with
    ``soft_wrap=False``, for lines of text are not folded.
    """
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if is_terminal else 100, soft_wrap=not is_terminal)
