# SPDX-License-Identifier: MIT
"""The files below a folder that may be images: each folder once, and no pipe."""

import os
import stat
from collections import Counter
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from ltplugins.data.sources.pictures import shown

_NO_FILE = "pipes or devices"
_KNOWN = "links to folders that hold them or were read"
_Place = tuple[int, int]  # device and inode: what a folder is, whatever its names are


def find_images(root: Path, others: Counter[str]) -> list[str]:
    """Find the images below a folder, in the order of their folders and names.

    Links to folders are followed, but into no folder that holds the root, and into none a second
    time: two links that lead back would multiply the images without end.

    Args:
        root: the folder.
        others: counts what is left out, by its ending; what has another reason, by that.
    """
    lexical, real = Path(os.path.abspath(root)), Path(os.path.realpath(root))
    seen = {_place(parent) for parent in {*lexical.parents, *real.parents}}
    if _place(root) in seen:
        others[_KNOWN] += 1
        return []
    seen.add(_place(root))
    found = [(str(root), *_look_into(root, others))]
    waiting = [os.path.join(root, name) for name in reversed(found[0][2])]
    while waiting:
        folder = waiting.pop()
        place = _place(folder)
        if place in seen:
            others[_KNOWN] += 1
            continue
        seen.add(place)
        files, folders = _look_into(folder, others)
        found.append((folder, files, folders))
        waiting += [os.path.join(folder, name) for name in reversed(folders)]
    paths = [os.path.join(folder, name) for folder, files, _ in sorted(found) for name in files]
    images = [path for path in paths if path.lower().endswith(IMG_EXTENSIONS)]
    if len(images) < len(paths):
        rest = set(paths) - set(images)
        others.update(shown(os.path.splitext(path)[1].lower()) for path in rest)
    return images


def is_hidden(name: str) -> bool:
    """Of a notebook, a version control, or macOS: no class and no image."""
    return name.startswith(".")


def is_no_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is there and cannot be read as a file: a pipe, a socket, a device."""
    if entry.is_file() or entry.is_dir():
        return False
    try:
        return not stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # a link to nothing: a missing image, which its loader tells
        return False


def left_out(others: Counter[str]) -> str:
    """What was counted, such as "10 of .gif, 3 without an ending"."""
    rows = sorted(others.items(), key=lambda row: (-row[1], not row[0], row[0]))
    words = [f"{n} {_what(ending)}" for ending, n in rows[:5]]
    return ", ".join(words + ["..."] * (len(rows) > 5))


def _what(ending: str) -> str:
    if ending in (_NO_FILE, _KNOWN):
        return ending
    return f"of {ending}" if ending else "without an ending"


def _look_into(folder: str | Path, others: Counter[str]) -> tuple[list[str], list[str]]:
    """Names of files and of folders, each in order; one that may not be read has none."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError:
        return [], []
    folders = sorted(entry.name for entry in visible if entry.is_dir())
    odd = {entry.name for entry in visible if is_no_file(entry)}
    if odd:
        others[_NO_FILE] += len(odd)
    return sorted({e.name for e in visible} - odd - {*folders}), folders


def _place(folder: str | Path) -> _Place:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
