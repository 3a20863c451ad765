# SPDX-License-Identifier: MIT
"""Verified copies of entries on this machine: fetched once, checked at each use, then offline.

Below ``$LTPLUGINS_CACHE/zoo`` (otherwise ``~/.cache/ltplugins/zoo``) each zoo has a folder: its
index, and a folder an entry, whose name holds a hash of the entry's files. An entry is fetched into
a hidden folder and gets its name when all its files are those of the index.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from ltplugins.catalogue.index import (
    INDEX,
    FileFacts,
    Index,
    Listing,
    require_name,
    require_safe,
)
from ltplugins.catalogue.root import FolderRoot, Root, find_root, key_of
from ltplugins.core.errors import UserError
from ltplugins.core.files import CACHE_VARIABLE, cache_folder, sha256, write_text
from ltplugins.core.records import from_plain, parse_json, read_json

log = logging.getLogger(__name__)

PREFIX = "zoo://"
# Entry, file, bytes that are there, bytes of the whole.
Progress = Callable[[str, str, int, int], None]


def is_zoo(source: object) -> bool:
    """Whether a text names an entry, as in ``zoo://NAME``."""
    return isinstance(source, str) and source.startswith(PREFIX)


def entry_folder(source: str) -> Path:
    """The verified folder of ``zoo://NAME``, fetched where it is not here yet.

    Raises:
        UserError: no such entry, or it cannot be had whole.
    """
    return Store.of_environment().entry(source.removeprefix(PREFIX))


class Store:
    """The entries of a zoo, as far as this machine has them.

    Args:
        root: where they are fetched from.
        cache: a folder of all zoos; None = the machine's.
    """

    def __init__(self, root: Root, cache: Path | None = None) -> None:
        self.root = root
        self.folder = (cache or cache_folder() / "zoo") / key_of(root.label)

    @classmethod
    def of_environment(cls) -> "Store":
        """That of ``LTPLUGINS_ZOO``.

        Raises:
            UserError: there is none.
        """
        return cls(find_root())

    @property
    def is_folder(self) -> bool:
        """Whether entries are used where they lie."""
        return isinstance(self.root, FolderRoot)

    def index(self, refresh: bool = False) -> Index:
        """The index: of a folder as it is, else as it was when it was last asked for.

        Args:
            refresh: ask the zoo anew.

        Raises:
            UserError: it cannot be had, or is not safe to use.
        """
        file = self.folder / INDEX
        if not self.is_folder and not refresh and file.exists():
            try:
                return _parse(read_json(file), file)
            except UserError as error:
                raise UserError(
                    f"{error} 'ltplugins zoo list --refresh' fetches it anew."
                ) from None
        text = self.read(INDEX)
        where = f"{self.root.label}/{INDEX}"
        index = _parse(parse_json(text, where), where)
        if not self.is_folder:
            with self._writing():
                write_text(file, text)
        return index

    def read(self, file: str) -> str:
        """The text of a small file beside the entries, as the zoo has it now.

        Raises:
            UserError: it cannot be had.
        """
        return self.root.read(file)

    def place(self, name: str, listing: Listing) -> Path:
        """The folder that an entry has, or will have, here."""
        if isinstance(self.root, FolderRoot):
            return self.root.path / name
        facts = [[file, of.sha256] for file, of in sorted(listing.files.items())]
        mark = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
        return self.folder / f"{name}-{mark}"

    def is_here(self, name: str, index: Index | None = None) -> bool:
        """Whether an entry is used without a network; ``index`` as for :meth:`entry`."""
        listing = (self.index() if index is None else index).entries.get(name)
        return listing is not None and self.place(name, listing).is_dir()

    def entry(self, name: str, tell: Progress | None = None, index: Index | None = None) -> Path:
        """The verified folder of an entry.

        Args:
            name: of the entry.
            tell: is called while files come.
            index: as it was read for several entries; None = it is read.

        Raises:
            UserError: no such entry, a file of a folder's that is not the index's, or one that
                cannot be had whole.
        """
        index = self.index() if index is None else index
        listing = index.find(require_name(name), self.root.label)
        place = self.place(name, listing)
        if self.is_folder:
            require_whole(place, listing)
            return place
        with suppress(FileNotFoundError):  # of a damaged one that another process mends
            if place.is_dir() and damage_of(place, listing) is None:
                return place  # without a lock: a cache that others have filled may be read-only
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f".{place.name}.lock"):
                if place.is_dir():
                    problem = damage_of(place, listing)
                    if problem is None:
                        return place
                    log.warning("%s; it is fetched again.", problem)
                self._fetch(name, listing, place, tell)
        return place

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say of a disk that does not take what comes whose it is, and how it is moved."""
        try:
            yield
        except OSError as error:
            if error.errno is None or isinstance(error, ConnectionError):
                raise
            raise UserError(
                f"{self.folder}: {error.strerror}. What comes from {self.root.label} is kept "
                f"there: make room or change its permissions, or set {CACHE_VARIABLE} to another "
                f"folder."
            ) from None

    def _fetch(self, name: str, listing: Listing, place: Path, tell: Progress | None) -> None:
        log.info("zoo://%s: %s from %s", name, in_words(listing.size), self.root.label)
        part = self.folder / f".{place.name}.part"
        part.mkdir(exist_ok=True)
        for file, facts in listing.files.items():

            def told(done: int, file: str = file, total: int = facts.size) -> None:
                if tell is not None:
                    tell(name, file, done, total)

            if not _is_file(part / file, facts):
                self.root.fetch(name, file, facts, part / file, told)
        for path in part.iterdir():
            if path.name not in listing.files:  # of the library that fetched them
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)


def _parse(content: Any, where: str | Path) -> Index:
    return require_safe(from_plain(Index, content, where, Index.FORM), str(where))


def require_whole(folder: Path, listing: Listing) -> None:
    """Refuse an entry one of whose files is not that of the index.

    Raises:
        UserError: the first such file.
    """
    problem = damage_of(folder, listing)
    if problem is not None:
        raise UserError(f"{problem}. Fetch or write the entry again.")


def damage_of(folder: Path, listing: Listing) -> str | None:
    """What is wrong with an entry's files, in words; None where they are those of the index."""
    for name, facts in listing.files.items():
        file = folder / name
        if not file.is_file():
            return f"{file} is missing"
        size = file.stat().st_size
        if size != facts.size:
            return f"{file} has {size} bytes, expected {facts.size}"
        if sha256(file) != facts.sha256:
            return f"{file} is damaged: its sha256 is not that of the index"
    return None


def _is_file(file: Path, facts: FileFacts) -> bool:
    return file.is_file() and file.stat().st_size == facts.size and sha256(file) == facts.sha256


def in_words(size: int) -> str:
    """Bytes for a reader.

    >>> in_words(1_700_000), in_words(2_300)
    ('1.7 MB', '2 kB')
    """
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(1, size // 1000)} kB"
