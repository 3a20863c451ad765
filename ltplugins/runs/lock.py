# SPDX-License-Identifier: MIT
"""One process at a time writes into a run's folder."""

import errno
import fcntl
import logging
from pathlib import Path
from typing import IO

from ltplugins.core.errors import UserError
from ltplugins.core.links import refuse_link
from ltplugins.runs.contents import FOLDERS, LOCK

log = logging.getLogger(__name__)


def take_lock(folder: Path) -> IO[str]:
    """Claim a folder for this process, until the file is closed.

    Raises:
        UserError: another process writes there, or a link lies where ours are to be.
        OSError: nothing can be written there.
    """
    for name in (LOCK, *FOLDERS):
        refuse_link(folder / name)
    lock = try_lock(folder / LOCK)
    if lock is None:
        raise UserError(f"another process is writing to {folder}. Wait for it, or set output_dir.")
    return lock


def try_lock(path: Path) -> IO[str] | None:
    """Open a file that one process at a time holds, until it is closed; None: another has it.

    On a disk without locks all processes get it, and a warning.

    Raises:
        OSError: nothing can be written there.
    """
    lock = open(path, "w")  # noqa: SIM115 - held until it is closed
    try:
        # A record lock, not flock: loader workers forked later must not hold it.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            lock.close()
            return None
        log.warning(
            "%s: its disk has no locks (%s): see yourself that no other process writes there.",
            path.parent,
            error.strerror,
        )
    return lock
