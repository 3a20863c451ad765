# SPDX-License-Identifier: MIT
"""Checkpoint files with a seal: the sha256 of all their bytes, in the file itself.

``torch.save`` writes a zip archive, and torch reads one without looking at its checksums: flipped
bytes become weights. The seal is the archive's comment, ``sha256:<hex>``, over everything before
it; torch, solo-learn and zip programs read such a file as any other. Where a file has none, the
archive's own CRC-32 of each part is looked at.
"""

import hashlib
import os
import re
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from ltplugins.core.files import atomic_path

_MARK = b"sha256:"
_SEAL = len(_MARK) + 64
_NO_COMMENT = b"\0\0"  # the last bytes of an archive: how long its comment is
_BLOCK = 1 << 20


class _HashedFile:
    """What ``torch.save`` writes to: a file, and the hash of what went into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write and hash; a full disk is remembered, for torch tells it in words of its own."""
        try:
            self.digest.update(data)
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_sealed(content: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint with its seal under a temporary name beside ``path``, and rename it.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    with atomic_path(path) as tmp, open(tmp, "w+b") as file:
        hashed = _HashedFile(file)
        try:
            torch.save(content, hashed)  # type: ignore[arg-type]
        except RuntimeError:
            if hashed.error is not None:
                raise hashed.error from None
            raise
        file.seek(-len(_NO_COMMENT), os.SEEK_END)
        assert file.read() == _NO_COMMENT, "torch.save has written a comment of its own"
        file.seek(-len(_NO_COMMENT), os.SEEK_END)
        seal = _MARK + hashed.digest.hexdigest().encode()
        file.write(struct.pack("<H", len(seal)) + seal)


def broken_seal(path: Path) -> str | None:
    """What is wrong with a file by its seal, or by its archive's checksums; None if nothing.

    A file that is no archive (of an old torch, or of something else) has nothing to be checked.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        body = size - _SEAL
        if body > 0:
            file.seek(body)
            seal = file.read(_SEAL)
            if re.fullmatch(rb"sha256:[0-9a-f]{64}", seal):
                is_whole = _hash_without_comment(file, body) == seal.removeprefix(_MARK).decode()
                return None if is_whole else "its bytes are not those that were written (sha256)"
    return _broken_part(path)


def _hash_without_comment(file: IO[bytes], body: int) -> str:
    """The hash of the first ``body`` bytes, as they were before the comment's length."""
    digest = hashlib.sha256()
    file.seek(0)
    left = body - len(_NO_COMMENT)
    while left > 0 and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    digest.update(_NO_COMMENT)
    return digest.hexdigest()


def _broken_part(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.comment.startswith(_MARK[:4]):
                return "its end is gone"
            part = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, struct.error) as error:
        return f"its archive is damaged ({error})"
    return None if part is None else f"{part} in it is damaged (CRC-32)"
