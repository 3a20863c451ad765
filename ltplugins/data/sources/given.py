# SPDX-License-Identifier: MIT
"""Images that a user hands over as they lie: a folder, a list, arrays, or the name of a pack.

Nothing is trained on them, so that a class may be empty or alone, and labels may be absent.

Legend: N images.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from ltplugins.core.arrays import open_archive
from ltplugins.core.errors import UserError, nearest
from ltplugins.core.files import expanded
from ltplugins.data.schema import EMBEDDED, DataConfig
from ltplugins.data.sources.arrays import arrays_from_path
from ltplugins.data.sources.base import FileSource, Source
from ltplugins.data.sources.build import build_source
from ltplugins.data.sources.files import file_list, flat_folder
from ltplugins.data.sources.lists import parse_list
from ltplugins.data.sources.named import Part
from ltplugins.data.sources.pictures import MAX_PIXELS, File, first_damage, opened, shown

_ARRAYS = (".npz", ".npy")


@dataclass(frozen=True)
class GivenImages:
    """Images with their names.

    Attributes:
        source: the images; a target is -1 where no label is known.
        names: N texts: a path below the folder, or as in the list; a place in the set.
    """

    source: Source
    names: list[str]

    @property
    def labels(self) -> np.ndarray | None:
        """Int[N]; None where no image has one."""
        targets = self.source.targets
        return targets if (targets >= 0).any() else None


def open_images(given: str, root: str | None = None, max_pixels: int = MAX_PIXELS) -> GivenImages:
    """Open what a user names.

    Args:
        given: a folder, in which the folders right below are classes where no image lies beside
            them; a text file of ``path`` or ``path label`` lines; an .npz or .npy of images, with
            labels or without; ``fashion_pack``, or a part of it such as ``fashion_pack/test``.
        root: folder that a list's paths are relative to; None = the list's own.
        max_pixels: a file of more is not decoded.

    Raises:
        UserError: nothing of that name, no image in it, missing files, damaged arrays.
    """
    found = _open(given, root)
    found.source.max_pixels = max_pixels
    return found


def require_pictures(given: GivenImages, way_out: str) -> None:
    """Refuse files whose heads are of no picture, or of one that is too large.

    Args:
        given: whose files are looked at; arrays are pictures.
        way_out: what else may be done about one.

    Raises:
        UserError: the first such file.
    """
    limit = given.source.max_pixels

    def look(path: File) -> None:
        with opened(path, limit):
            pass

    damage = first_damage(getattr(given.source, "paths", ()), look)
    if damage is not None:
        path, reason = damage
        raise UserError(
            f"{shown(str(path))} is no image ({reason}). Replace or remove it{way_out}."
        )


def _open(given: str, root: str | None) -> GivenImages:
    """See :func:`open_images`."""
    pack, _, part = given.partition("/")
    if pack in EMBEDDED:
        return _of_pack(pack, part or "train")
    path = expanded(given)
    if root is not None and (not path.is_file() or path.suffix in _ARRAYS):
        raise UserError(f"--root is for a list of paths, and {given} is none. Leave it out.")
    if path.is_dir():
        return _of_folder(path)
    if path.is_file() and path.suffix in _ARRAYS:
        source = arrays_from_path(path, no_labels=not _has_labels(path))
        return GivenImages(source, [str(i) for i in range(len(source))])
    if path.is_file():
        return _of_list(path, root)
    raise UserError(
        f"{given} does not exist: expected a folder of images, a list of paths, an .npz or .npy, "
        f"or one of {', '.join(EMBEDDED)}.{nearest(given, EMBEDDED)}"
    )


def _of_pack(name: str, part: str) -> GivenImages:
    parts = get_args(Part)
    if part not in parts:
        raise UserError(f"{name}/{part}: expected one of {', '.join(parts)} after the pack's name.")
    source = build_source(DataConfig(dataset=name), part)  # type: ignore[arg-type]
    return GivenImages(source, [f"{name}/{part}/{i}" for i in range(len(source))])


def _of_folder(root: Path) -> GivenImages:
    """Labels by the folders right below, if every image lies in one."""
    found = flat_folder(root)
    below = [os.path.relpath(path, root) for path in found.paths]
    names = [shown(name) for name in below]
    folders = [name.partition(os.sep)[0] if os.sep in name else None for name in names]
    if None in folders:
        return GivenImages(found, names)
    classes = sorted({folder for folder in folders if folder is not None})
    number = {name: label for label, name in enumerate(classes)}
    targets = np.asarray([number[folder] for folder in folders if folder is not None])
    return GivenImages(FileSource(found.paths, targets, classes, found.record), names)


def _of_list(path: Path, root: str | None) -> GivenImages:
    lines, _ = parse_list(path, True, None)
    words = [line.rsplit(maxsplit=1) for line in lines]
    labelled = all(len(word) == 2 and word[1].isdecimal() for word in words)
    names, labels = parse_list(path, not labelled, None)
    count = 1 + int(labels.max()) if labelled else None
    source = file_list(path, root, no_labels=not labelled, num_classes=count)
    return GivenImages(source, [shown(name) for name in names])


def _has_labels(path: Path) -> bool:
    if path.suffix == ".npy":
        return path.with_name(f"{path.stem}_labels.npy").is_file()
    with open_archive(path) as archive:
        return "labels" in archive.files
