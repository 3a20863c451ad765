# SPDX-License-Identifier: MIT
"""``index.json``: the entries of a zoo, their files with hashes, and what a list shows of them.

What a stranger's index says is never trusted with a place: names are plain words, files are of the
kinds that are read without executing anything.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import ClassVar

from ltplugins.core.errors import UserError, nearest
from ltplugins.core.records import Record

INDEX = "index.json"
# Of an entry: nothing that a program would execute or unpickle.
SUFFIXES = (".json", ".md", ".onnx", ".png", ".safetensors", ".sig")
NEEDED = ("config.json", "model.safetensors")
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,94}[a-z0-9])?")
_NAMED = (
    "small letters, digits, '-', '_' and '.', 96 at most, a letter or digit first and last and "
    "no '..'"
)
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,94}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
LARGEST = 2**40  # bytes of a file


@dataclass(frozen=True)
class FileFacts:
    """What a file must be: its sha256 in hexadecimal digits, its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Headline:
    """The one number that a list shows of an entry.

    Attributes:
        protocol: whose it is.
        mean, std: of the overall accuracy, as fractions; None where it is not known, or of one run.
    """

    protocol: str
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """An entry's line.

    Attributes:
        files: by their names.
        method, dataset, backbone, epochs: of the training.
        runs: how many runs its numbers are of.
        opened_by: ``timm``, or ``load_backbone`` where timm has no such network.
        headline: None where nothing was measured.
    """

    files: dict[str, FileFacts]
    method: str
    dataset: str
    backbone: str
    epochs: int
    runs: int
    opened_by: str = "timm"
    headline: Headline | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, kw_only=True)
class Index(Record):
    """The contents of ``index.json``: entries by name."""

    FORM: ClassVar[int] = 1
    version: int = FORM
    entries: dict[str, Listing] = field(default_factory=dict)

    def find(self, name: str, where: str) -> Listing:
        """The line of an entry.

        Args:
            name: of the entry.
            where: the zoo, for the message.

        Raises:
            UserError: there is none of this name.
        """
        if name not in self.entries:
            known = ", ".join(sorted(self.entries)[:8]) or "none"
            raise UserError(
                f"zoo://{name}: no such entry in {where}.{nearest(name, self.entries)} Known: "
                f"{known}. 'ltplugins zoo list --refresh' asks the zoo anew."
            )
        return self.entries[name]


def require_name(name: str) -> str:
    """Refuse what is no name of an entry, such as a path.

    Raises:
        UserError: see above.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise UserError(
            f"zoo://{name}: expected a name of {_NAMED}, such as those of 'ltplugins zoo list'."
        )
    return name


def require_safe(index: Index, where: str) -> Index:
    """Refuse an index that names a place outside its entry, or a file that would be executed.

    Args:
        index: as it was read.
        where: it came from, for the message.

    Raises:
        UserError: the first such entry.
    """
    for name, listing in index.entries.items():
        if not NAME.fullmatch(name) or ".." in name:
            raise _unsafe(where, f"entry {name!r}", f"a plain name, no path: {_NAMED}")
        _require_files(listing.files, f"{where}, entry {name!r}")
    return index


def _require_files(files: Mapping[str, FileFacts], where: str) -> None:
    for needed in NEEDED:
        if needed not in files:
            raise _unsafe(where, "files", f"{needed} among them")
    for file, facts in files.items():
        if not _FILE.fullmatch(file) or ".." in file:
            expected = "a plain name, no path: letters, digits, '-', '_' and '.', 95 at most"
            raise _unsafe(where, f"file {file!r}", f"{expected}, a letter or digit first, no '..'")
        if PurePosixPath(file).suffix not in SUFFIXES:
            raise _unsafe(where, f"file {file!r}", f"one of {', '.join(SUFFIXES)}")
        if not _SHA256.fullmatch(facts.sha256):
            raise _unsafe(where, f"sha256 of {file!r}", "64 hexadecimal digits")
        if not 0 < facts.size <= LARGEST:
            raise _unsafe(where, f"size of {file!r}", f"bytes from 1 to {LARGEST}")


def _unsafe(where: str, what: str, expected: str) -> UserError:
    return UserError(f"{where}: {what}: expected {expected}. Nothing of this zoo is taken.")
