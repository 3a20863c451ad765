# SPDX-License-Identifier: MIT
"""What a source's pictures and labels are, as hashes: data that were exchanged are noticed.

A file's bytes are read once. From then on its size and times stand for them, in a list per folder
below ``$LTPLUGINS_CACHE`` (otherwise ``~/.cache/ltplugins``); where one of these has changed the
bytes are read again. Names and places of files do not count, so that data may be moved.

Legend: N images.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from ltplugins.core.files import cache_folder, write_text

if TYPE_CHECKING:
    from ltplugins.data.sources.base import Source

log = logging.getLogger(__name__)

# A file that is written in the very moment in which it is read may change once more within the
# grain of its time stamp: so young a stamp stands for nothing.
_GRAIN = 2.0
_BLOCK = 4096  # images of an array that are gathered at once
_TELL = 10_000  # new files from which on reading them is announced
_READERS = 8


def content_hash(source: "Source", indices: np.ndarray | None = None) -> str:
    """Identify images with their labels, in order: sha256 of both hashes.

    Args:
        source: of the images.
        indices: Int[N], which of them; None = all.
    """
    both = f"{labels_hash(source.targets, indices)} {pictures_hash(source, indices)}"
    return hashlib.sha256(both.encode()).hexdigest()


def labels_hash(targets: np.ndarray, indices: np.ndarray | None = None) -> str:
    """Sha256 of labels, in order."""
    chosen = targets if indices is None else targets[indices]
    return hashlib.sha256(np.ascontiguousarray(chosen, dtype="<i8").tobytes()).hexdigest()


def pictures_hash(source: "Source", indices: np.ndarray | None = None) -> str:
    """Sha256 of pictures, in order: of their pixels in memory, of their files' bytes otherwise.

    A source's stand-ins take the pixels' place.
    """
    digest = hashlib.sha256()
    rows = source.stand_ins
    if rows is not None:
        chosen = rows if indices is None else rows[indices]
        digest.update(np.ascontiguousarray(chosen, dtype="<i8").data)
        return digest.hexdigest()
    if isinstance(source.images, np.ndarray):
        _add_pixels(digest, source.images, indices)
    paths: Sequence[str] = getattr(source, "paths", ())
    if indices is not None and len(paths):
        paths = [paths[i] for i in indices]
    for file in file_hashes(paths):
        digest.update(file.encode())
    return digest.hexdigest()


def _add_pixels(digest: Any, images: np.ndarray, indices: np.ndarray | None) -> None:
    """Block by block: an array that is mapped may be larger than the memory."""
    digest.update(f"{images.shape[1:]}".encode())
    count = len(images) if indices is None else len(indices)
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        chosen = images[block] if indices is None else images[indices[block]]
        digest.update(np.ascontiguousarray(chosen).data)


def file_hashes(paths: Sequence[str]) -> list[str]:
    """The hash of each file's bytes; a file that cannot be read says so in its place."""
    if not paths:
        return []
    places = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(place) for place in places])
    with _cache_of(root) as cache:
        known = _open(cache)
        now = time.time()
        stamps = dict(zip(places, _map(_stamp, places), strict=True))
        new = [p for p, s in stamps.items() if s is not None and known.get(p, [None])[0] != s]
        if len(new) >= _TELL:
            log.info("%s: reading %d files, once, to know them again", root, len(new))
        known |= {p: [stamps[p], read] for p, read in zip(new, _map(_read, new), strict=True)}
        found = [known[p][1] if stamps[p] is not None else "absent" for p in places]
        young = [p for p in new if max(stamps[p][1:]) / 1e9 > now - _GRAIN]
        for place in young:
            del known[place]
        if cache is not None and len(new) > len(young):
            with suppress(OSError):
                write_text(cache, json.dumps(known))
    return found


def _map(function: Callable[[str], Any], paths: Sequence[str]) -> list[Any]:
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(function, paths))


def _stamp(path: str) -> list[int] | None:
    """Size, time of the contents' change, time of the entry's change; None without a file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        return f"unreadable {error.errno}"


@contextmanager
def _cache_of(root: str) -> Iterator[Path | None]:
    """The list of the files below ``root`` that were read before; None where none can be kept.

    The processes of one machine take turns, so that one of them reads and the others find.
    """
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    path = cache_folder() / "files" / f"{name}.json"
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        except (OSError, NotImplementedError):
            path = None  # type: ignore[assignment]
        yield path


def _open(path: Path | None) -> dict[str, Any]:
    """Place -> [stamp, hash]."""
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
