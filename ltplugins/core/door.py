# SPDX-License-Identifier: MIT
"""The one door through which errors leave: what a user can cause is a line, the rest a report.

Libraries raise errors of their own for what a user has typed, a disk that is full or a file that
is damaged. :func:`as_user_error` knows these; whatever it does not know is our defect, and
:func:`report` says what a report of it needs.
"""

import errno
import importlib.metadata
import os
import platform
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ltplugins import __version__
from ltplugins.core.console import make_console, print_error
from ltplugins.core.errors import UserError

# By name, so that nothing is imported for it: module prefix, class.
_REFUSALS = (
    ("hydra.", "HydraException"),
    ("omegaconf.", "OmegaConfBaseException"),
    ("yaml.", "YAMLError"),
    ("lightning.", "MisconfigurationException"),
)
_DAMAGED = (
    ("safetensors", "SafetensorError"),
    ("_pickle", "UnpicklingError"),
    ("zipfile", "BadZipFile"),
    ("json.", "JSONDecodeError"),
    ("PIL.", "UnidentifiedImageError"),
    ("PIL.", "DecompressionBombError"),
    ("zlib", "error"),
    ("builtins.", "UnicodeDecodeError"),
    ("builtins.", "EOFError"),
)
_FULL = (("builtins.", "MemoryError"), ("torch.", "OutOfMemoryError"))
# Of torch, whose errors for it have no type of their own.
_TOO_LARGE = ("DefaultCPUAllocator", "Storage size calculation overflowed")
_WAYS_OUT = {
    errno.ENOSPC: "Make room, or write elsewhere; what was there is kept.",
    errno.EDQUOT: "Make room, or write elsewhere; what was there is kept.",
    errno.EROFS: "Write elsewhere: that disk is read-only.",
    errno.EACCES: "Change its permissions, or give another.",
    errno.EPERM: "Change its permissions, or give another.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or take fewer workers.",
    errno.ENOMEM: "Take fewer workers or a smaller batch.",
}
GOES_ON = "stopped by Ctrl-C; the same command goes on."
_REPORTED = ("torch", "lightning", "numpy", "hydra-core")


def as_user_error(error: BaseException) -> UserError | None:
    """The line for an error that a user can cause and mend; None for a defect of ours."""
    if isinstance(error, UserError):
        return error
    if _is_a(error, _REFUSALS):
        return UserError(f"{_plain(error)}.")
    if _is_a(error, _DAMAGED):
        return UserError(f"a file is damaged, or of another kind: {_plain(error)}.")
    if _is_a(error, _FULL) or any(text in str(error) for text in _TOO_LARGE):
        return UserError(
            f"the memory is full ({_plain(error)[:200]}). Take a smaller batch or fewer workers, "
            f"or end other programs."
        )
    if isinstance(error, ConnectionError | BlockingIOError | ChildProcessError | InterruptedError):
        return None  # between processes, not of a file
    if isinstance(error, OSError):
        return UserError(_of_disk(error))
    return _of_workers(error)


def report(error: BaseException) -> str:
    """What to send with a traceback of ours."""
    versions = [f"ltplugins {__version__}", f"Python {platform.python_version()}"]
    for name in _REPORTED:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    return (
        f"not expected ({type(error).__name__}): a defect of ltplugins, or of a script or callback "
        f"of yours. Please report it with the traceback above and: {', '.join(versions)}, "
        f"{platform.platform()}; command: {' '.join(sys.argv)}"
    )


def _is_a(error: BaseException, kinds: tuple[tuple[str, str], ...]) -> bool:
    known = [(kind.__module__, kind.__qualname__) for kind in type(error).__mro__]
    return any(
        name == wanted and f"{module}.".startswith(prefix)
        for module, name in known
        for prefix, wanted in kinds
    )


def _plain(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")[:500]


def _of_disk(error: OSError) -> str:
    if error.errno is None:  # of a library: numpy's short writes, an image of no known kind
        return f"a file cannot be read or written: {_plain(error)}."
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    reason = error.strerror or os.strerror(error.errno)
    way_out = _WAYS_OUT.get(error.errno, "See that it is there, and that this program may use it.")
    return f"{path or 'a file'}: {reason}. {way_out}"


def _of_workers(error: BaseException) -> UserError | None:
    """A process that loads images has died, or has not answered."""
    text = " ".join(str(error).split())
    if not isinstance(error, RuntimeError) or "DataLoader" not in text:
        return None
    if "timed out" in text:
        return UserError(
            f"a process that loads images does not answer ({text.rstrip('.')}): it hangs, is "
            f"stopped, or its disk is. The same command goes on from the last checkpoint; "
            f"data.worker_timeout is how many seconds it is waited for."
        )
    if "worker" in text and ("killed" in text or "exited unexpectedly" in text):
        return UserError(
            f"a process that loads images has died ({text.rstrip('.')}). The same command goes on "
            f"from the last checkpoint; where memory was short, set data.num_workers lower."
        )
    return None


def guarded(
    work: Callable[[], Any], stopped: str = "stopped by Ctrl-C; the same command starts anew."
) -> Any:
    """Run ``work``; what a user can cause ends the process with one line and exit code 2.

    Ctrl-C ends it with 130 and the line ``stopped``; SIGTERM, in a training, with 143; a defect,
    with its traceback and what a report of it needs, with 1; a reader who has gone, with 141.
    """
    try:
        return _told(work, stopped)
    except BrokenPipeError:
        # Whoever read what is written has gone, as `| head` does: nothing more is to be said.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def _told(work: Callable[[], Any], stopped: str) -> Any:
    try:
        return work()
    except KeyboardInterrupt:
        make_console(stderr=True).print(f"\n{stopped}")
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise
    except Exception as error:
        known = as_user_error(error)
        if known is None:
            traceback.print_exception(error)
            print_error(report(error))
            raise SystemExit(1) from None
        print_error(str(known))
        raise SystemExit(2) from None
