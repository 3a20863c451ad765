# SPDX-License-Identifier: MIT
"""Sources of image files: a folder per class, a flat folder, or a list of ``path label`` lines."""

import dataclasses
import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from ltplugins.core.errors import UserError
from ltplugins.data.sources.base import FileSource, check_no_empty_class, number_names
from ltplugins.data.sources.lists import parse_list
from ltplugins.data.sources.pictures import GREY_MODES, Damage, opened, shown
from ltplugins.data.sources.records import RECORDS, custom_record
from ltplugins.data.sources.walk import find_images, is_hidden, is_no_file, left_out

log = logging.getLogger(__name__)

_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_SAMPLE = 64  # headers that are read to learn what kind of images there are


def image_folder(
    root: str | Path, *, dataset: str = "custom", class_names: tuple[str, ...] | None = None
) -> FileSource:
    """Read one sub-folder a class, in torchvision's order, so that indexes equal solo-learn's.

    Args:
        root: the folder.
        dataset: name for the record.
        class_names: those of the training part, for a test part that need not show every class.

    Raises:
        UserError: no such folder, nothing in it, a class without image, an unknown class, the
            folder above a training and a test part.
    """
    root = _folder(root)
    found = tuple(sorted(e.name for e in os.scandir(root) if e.is_dir() and not is_hidden(e.name)))
    if not found:
        raise UserError(
            f"{root}: no class folder in it; expected {root.name}/CLASS/image.jpg. "
            f"For images without classes set data.no_labels: true."
        )
    _refuse_parts(root, found)
    names = class_names or found
    strange = sorted({shown(name) for name in found} - {shown(name) for name in names})
    if strange:
        raise UserError(
            f"{root}: class folder '{strange[0]}' is not in the training part, "
            f"which has {len(names)}: {', '.join(names[:5])} ..."
        )
    numbers = {shown(name): number for number, name in enumerate(names)}
    paths: list[str] = []
    targets: list[int] = []
    empty = []
    others: Counter[str] = Counter()
    for name in found:
        files = find_images(root / name, others)
        paths += files
        targets += [numbers[shown(name)]] * len(files)
        if not files:
            empty.append(name)
    if empty and class_names is None:
        raise UserError(
            f"{root}: {len(empty)} of {len(found)} class folders have no image: "
            f"{', '.join(map(shown, empty[:5]))}. {_accepted(others)}"
        )
    if not paths:
        raise UserError(f"{root}: no image in it. {_accepted(others)}")
    _tell_left_out(root, others)
    return _source(paths, np.asarray(targets), tuple(shown(name) for name in names), dataset)


def flat_folder(root: str | Path, *, dataset: str = "custom") -> FileSource:
    """Read images without labels, anywhere under ``root``; every target is -1.

    Raises:
        UserError: no such folder, or no image in it.
    """
    root = _folder(root)
    others: Counter[str] = Counter()
    paths = find_images(root, others)
    if not paths:
        raise UserError(f"{root}: no image in it. {_accepted(others)}")
    _tell_left_out(root, others)
    return _source(paths, np.full(len(paths), -1), number_names(1), dataset)


def file_list(
    path: str | Path,
    root: str | Path | None = None,
    *,
    dataset: str = "custom",
    no_labels: bool = False,
    num_classes: int | None = None,
) -> FileSource:
    """Read a list of ``path label`` lines, as ImageNet-LT, Places-LT and iNaturalist publish.

    Args:
        path: the list.
        root: folder the paths are relative to; None = the folder of the list.
        dataset: name for the record.
        no_labels: lines are paths only; every target is -1.
        num_classes: of the training part; None = from the labels, every class must have an image.

    Raises:
        UserError: a bad line (with its number), missing files (the first and how many), a class
            without an image, a label outside the classes.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: {path}. Expected a list with 'path label' per line.")
    names, targets = parse_list(path, no_labels, num_classes)
    base = Path(root) if root is not None else path.parent
    files = [str(base / name) for name in names]
    _check_files_exist(files, path, base)
    count = num_classes or (1 if no_labels else int(targets.max()) + 1)
    if num_classes is None and not no_labels:
        check_no_empty_class(targets, count, path)
    return _source(files, targets, number_names(count), dataset)


def _check_files_exist(files: list[str], path: Path, base: Path) -> None:
    # One listing a folder instead of one stat a file: lists have up to 10^6 lines.
    listings: dict[str, set[str]] = {}
    missing = []
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listings:
            listings[folder] = _files_in(folder)
        if name not in listings[folder]:
            missing.append(file)
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(files)} files are missing, the first is "
            f"{missing[0]}. Paths are relative to {base}; set data.root to another folder "
            f"(--root of ltplugins features)."
        )


def _files_in(folder: str) -> set[str]:
    """Names of what can be read as a file: no folder, no pipe, which would be waited for."""
    folder = folder or os.curdir  # of a list in the working folder
    if not os.path.isdir(folder):
        return set()
    with os.scandir(folder) as entries:
        return {e.name for e in entries if not e.is_dir() and not is_no_file(e)}


def _folder(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise UserError(
            f"no such folder: {root}. Set data.train_path (val_path, probe_path) to a folder "
            f"with one subfolder of images per class."
        )
    return root


def _refuse_parts(root: Path, found: tuple[str, ...]) -> None:
    """Refuse the folder above the parts: they would be its classes, test images among them."""
    if not {name.lower() for name in found} <= _PARTS:
        return
    if any(e.is_dir() and not is_hidden(e.name) for name in found for e in os.scandir(root / name)):
        raise UserError(
            f"{root}: its folders ({', '.join(found)}) are parts of a data set with folders of "
            f"their own, no classes. Set data.train_path to one of them, {root / found[0]}, and "
            f"data.val_path to another."
        )


def _accepted(others: Counter[str]) -> str:
    rest = f" Left out: {left_out(others)}." if others else ""
    return f"Accepted: {', '.join(IMG_EXTENSIONS)}.{rest}"


def _tell_left_out(root: Path, others: Counter[str]) -> None:
    """Say which files are not trained on; the endings are torchvision's, as solo-learn's are."""
    if others:
        log.warning(
            "%s: files left out: %s. %s", shown(root), left_out(others), _accepted(Counter())
        )


def _source(
    paths: list[str], targets: np.ndarray, names: tuple[str, ...], dataset: str
) -> FileSource:
    record = RECORDS.get(dataset)
    if record is None:
        size, grey = _look_at(paths)
        record = custom_record(len(names), size, grey=grey)
    # A part of ImageNet in a folder has the classes of the folder.
    record = dataclasses.replace(record, num_classes=len(names))
    return FileSource(paths, targets, names, record)


def _look_at(paths: list[str]) -> tuple[int, bool]:
    """Look at a sample's headers: the median of the longer sides, and whether all are grey.

    The sample is seeded, so that neither depends on which file comes first.
    """
    if len(paths) > _SAMPLE:
        chosen = np.random.RandomState(0).choice(len(paths), _SAMPLE, replace=False)
        paths = [paths[i] for i in sorted(chosen)]
    sizes, grey = [], True
    for path in paths:
        try:
            with opened(path) as image:
                sizes.append(max(image.size))
                grey = grey and image.mode in GREY_MODES
        except Damage:
            continue
    return (int(np.median(sizes)), grey) if sizes else (224, False)
