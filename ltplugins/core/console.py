# SPDX-License-Identifier: MIT
"""Consoles whose lines are not cut where there is no terminal to tell a width."""

import sys

from rich.console import Console


def make_console(stderr: bool = False) -> Console:
    """A rich console; 100 columns wide when its output goes to a file or a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 100)
