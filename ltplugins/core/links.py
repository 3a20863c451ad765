# SPDX-License-Identifier: MIT
"""No write through a link: a folder from elsewhere must not say where this machine is written to.

Files that are written beside their target and renamed (:mod:`ltplugins.core.files`) replace a link
that lies in their place; this is for folders, and for files that are opened as they are.
"""

from pathlib import Path

from ltplugins.core.errors import UserError


def refuse_link(path: Path) -> None:
    """Refuse a place that would be written to and is a link.

    Raises:
        UserError: it is one, also where it leads nowhere.
    """
    if path.is_symlink():
        kind = "folder" if path.is_dir() else "file"
        raise UserError(
            f"{path}: expected a {kind} of this run, got a link, through which another place would "
            f"be written to. Put the {kind} itself there, or remove the link; the folder above may "
            f"be one."
        )
