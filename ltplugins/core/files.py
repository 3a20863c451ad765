# SPDX-License-Identifier: MIT
"""Files that are either whole or absent: written under a temporary name, then renamed.

A temporary name says whose it is (machine and process), so that what a killed process has left is
known as ours and is removed by whoever writes there next.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "LTPLUGINS_CACHE"


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` as the home folder; ``~nobody`` stays as it is, as a shell leaves it."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """What is known between runs: ``$LTPLUGINS_CACHE``, otherwise ``~/.cache/ltplugins``."""
    return expanded(os.environ.get(CACHE_VARIABLE) or "~/.cache/ltplugins")


# .NAME.part-MACHINE-PROCESS-RANDOM.SUFFIX
_TEMPORARY = re.compile(r"\..+\.part-([0-9a-f]{6})-(\d+)-[0-9a-f]{8}(\.[^.]*)?")
_OS_ERROR = re.compile(r"(?:\(os error |Os { code: )(\d+)")  # the second before safetensors 0.6
# Of another machine's process nobody here knows whether it lives.
_FOREIGN_SECONDS = 24 * 3600.0
_swept: set[Path] = set()


def is_temporary(path: Path) -> bool:
    """Whether a file or folder has the name of one of ours that is not finished."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: str | Path) -> list[Path]:
    """Remove what processes that live no more have left unfinished in a folder.

    Returns:
        What was removed. A file of a living process stays, and one of another machine for a day.
    """
    removed = []
    with contextlib.suppress(OSError):  # no such folder, or not ours to clean
        for path in [*Path(folder).iterdir()]:
            if not _is_left_behind(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _is_left_behind(path: Path) -> bool:
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    if match[1] != _machine():
        return time.time() - path.lstat().st_mtime > _FOREIGN_SECONDS
    try:
        os.kill(int(match[2]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, alive
        return False
    return False


@functools.cache
def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def temporary(path: Path, suffix: str = "") -> Path:
    """A new name beside ``path`` that :func:`sweep` knows; nothing is made."""
    stem = path.name.removesuffix(suffix)
    return path.with_name(f".{stem}.part-{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix}")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed.

    On an exception the temporary file is removed and ``path`` is left as it was.

    Raises:
        OSError: it cannot be written; its ``filename`` is ``path``.
    """
    path = Path(path)
    with _named(path):
        _ready(path.parent)
        # The suffix stays last: numpy and matplotlib choose the format by it.
        tmp = temporary(path, path.suffix)
        try:
            yield tmp
            with open(tmp, "rb") as f:
                os.fsync(f.fileno())
            os.replace(tmp, path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                tmp.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success its files are flushed and it is renamed.

    ``path`` may be an empty folder, which is replaced. On an exception nothing is left.

    Raises:
        OSError: it cannot be made there; its ``filename`` is ``path``.
    """
    path = Path(path).absolute()
    with _named(path):
        _ready(path.parent)
        tmp = temporary(path)
        tmp.mkdir()
        try:
            yield tmp
            for file in tmp.iterdir():
                with open(file, "rb") as f:
                    os.fsync(f.fileno())
            sync_folder(tmp)
            os.replace(tmp, path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename outlives a loss of power."""
    with contextlib.suppress(OSError):  # some network file systems have no such thing
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _ready(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error of the disk say which file was to be written; a full disk's own does not.

    A library that is not of Python has the number in its words alone: "... (os error 28)".
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or type(error).__init__ is not OSError.__init__:
            raise
        is_ours = error.filename is None or is_temporary(Path(os.fsdecode(error.filename)))
        if not is_ours:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        number = _OS_ERROR.search(str(error)) if type(error).__name__ == "SafetensorError" else None
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def sha256(path: str | Path) -> str:
    """Hash a file in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
