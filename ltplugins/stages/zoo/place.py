# SPDX-License-Identifier: MIT
"""A folder that a command of the zoo is to write into, before it works. Light: no torch."""

import os
from pathlib import Path

from ltplugins.core.errors import UserError


def require_folder(path: Path, option: str) -> None:
    """Refuse what can be no folder: it, or what it would lie in, is a file, or is read-only.

    Args:
        path: a folder that is there, or is to be made.
        option: that it was given by, for the message.

    Raises:
        UserError: see above.
    """
    there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = "cannot be written to" if there.is_dir() else "is no folder"
        raise UserError(
            f"{option}: expected a folder, got {path}: {there} {problem}. Give another."
        )
