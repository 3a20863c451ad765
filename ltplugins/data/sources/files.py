# SPDX-License-Identifier: MIT
"""Sources of image files: a folder per class, a flat folder, or a list of ``path label`` lines."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from ltplugins.core.errors import UserError
from ltplugins.data.sources.base import FileSource, check_no_empty_class, number_names
from ltplugins.data.sources.records import RECORDS, DataRecord, custom_record


def image_folder(
    root: str | Path, *, dataset: str = "custom", class_names: tuple[str, ...] | None = None
) -> FileSource:
    """Read one sub-folder a class, in torchvision's order, so that indexes equal solo-learn's.

    Args:
        root: the folder.
        dataset: name for the record.
        class_names: those of the training part, for a test part that need not show every class.

    Raises:
        UserError: no such folder, nothing in it, a class without image, an unknown class.
    """
    root = _folder(root)
    found = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir()))
    if not found:
        raise UserError(
            f"{root}: no class folder in it; expected {root.name}/CLASS/image.jpg. "
            f"For images without classes set data.no_labels: true."
        )
    names = class_names or found
    strange = sorted(set(found) - set(names))
    if strange:
        raise UserError(
            f"{root}: class folder '{strange[0]}' is not in the training part, "
            f"which has {len(names)}: {', '.join(names[:5])} ..."
        )
    paths: list[str] = []
    targets: list[int] = []
    empty = []
    for name in found:
        files = _walk(root / name)
        paths += files
        targets += [names.index(name)] * len(files)
        if not files:
            empty.append(name)
    if empty and class_names is None:
        raise UserError(
            f"{root}: {len(empty)} of {len(found)} class folders have no image: "
            f"{', '.join(empty[:5])}. Accepted: {', '.join(IMG_EXTENSIONS)}."
        )
    if not paths:
        raise UserError(f"{root}: no image in it. Accepted: {', '.join(IMG_EXTENSIONS)}.")
    return _source(paths, np.asarray(targets), names, dataset)


def flat_folder(root: str | Path, *, dataset: str = "custom") -> FileSource:
    """Read images without labels, anywhere under ``root``; every target is -1.

    Raises:
        UserError: no such folder, or no image in it.
    """
    root = _folder(root)
    paths = _walk(root)
    if not paths:
        raise UserError(f"{root}: no image in it. Accepted: {', '.join(IMG_EXTENSIONS)}.")
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
    names, targets = _parse_list(path, no_labels, num_classes)
    base = Path(root) if root is not None else path.parent
    files = [str(base / name) for name in names]
    _check_files_exist(files, path, base)
    count = num_classes or (1 if no_labels else int(targets.max()) + 1)
    if num_classes is None and not no_labels:
        check_no_empty_class(targets, count, path)
    return _source(files, targets, number_names(count), dataset)


def _parse_list(
    path: Path, no_labels: bool, num_classes: int | None
) -> tuple[list[str], np.ndarray]:
    names: list[str] = []
    targets: list[int] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.strip()
        if not line:
            continue
        if no_labels:
            names.append(line)
            targets.append(-1)
            continue
        # From the right: file names may have blanks in them.
        parts = line.rsplit(maxsplit=1)
        label = parts[1] if len(parts) == 2 else ""
        if not label.isdecimal():
            raise UserError(f"{path}, line {number}: expected 'path label', got {line!r}.")
        if num_classes is not None and int(label) >= num_classes:
            raise UserError(
                f"{path}, line {number}: label {label} is outside the {num_classes} classes "
                f"of the training part (0 to {num_classes - 1})."
            )
        names.append(parts[0])
        targets.append(int(label))
    if not names:
        raise UserError(f"{path}: the list is empty. Expected 'path label' per line.")
    return names, np.asarray(targets, dtype=np.int64)


def _check_files_exist(files: list[str], path: Path, base: Path) -> None:
    # One listing a folder instead of one stat a file: lists have up to 10^6 lines.
    listings: dict[str, set[str]] = {}
    missing = []
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listings:
            listings[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listings[folder]:
            missing.append(file)
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(files)} files are missing, the first is "
            f"{missing[0]}. Paths are relative to {base}; set data.root to another folder."
        )


def _folder(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise UserError(
            f"no such folder: {root}. Set data.train_path (val_path, probe_path) to a folder "
            f"with one subfolder of images per class."
        )
    return root


def _walk(root: Path) -> list[str]:
    paths = []
    for folder, _, files in sorted(os.walk(root, followlinks=True)):
        paths += [os.path.join(folder, f) for f in sorted(files)]
    return [p for p in paths if p.lower().endswith(IMG_EXTENSIONS)]


def _source(
    paths: list[str], targets: np.ndarray, names: tuple[str, ...], dataset: str
) -> FileSource:
    record = RECORDS.get(dataset) or custom_record(len(names), _first_size(paths))
    return FileSource(paths, targets, names, _with_classes(record, len(names)))


def _with_classes(record: DataRecord, num_classes: int) -> DataRecord:
    """Give a part of ImageNet in a folder the classes of the folder."""
    if record.num_classes == num_classes:
        return record
    return DataRecord(
        record.name, num_classes, record.mean, record.std, record.image_size, record.small_stem
    )


def _first_size(paths: list[str]) -> int:
    """Find the longer side of the first image that opens; only headers are read."""
    for path in paths[:8]:
        try:
            with Image.open(path) as image:
                return max(image.size)
        except (OSError, SyntaxError, ValueError):
            continue
    return 224
