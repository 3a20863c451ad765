# SPDX-License-Identifier: MIT
"""``data.format: hf``: sets of Hugging Face's ``datasets`` that lie on this machine.

A folder that ``save_to_disk`` wrote, a ``.parquet`` file, or a folder of parquet files or images as
the Hub lays them out. Nothing is downloaded. An image's index is its row.

Legend: N images, C classes.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ltplugins.core.errors import UserError, install
from ltplugins.data.sources.base import (
    MOST_CLASSES,
    CorruptImage,
    FileSource,
    Source,
    check_no_empty_class,
    number_names,
)
from ltplugins.data.sources.contents import file_hashes
from ltplugins.data.sources.pictures import GREY_MODES, Damage, decode, opened
from ltplugins.data.sources.records import DataRecord, custom_record

# The split of a set with several that is meant where a path names none.
_SPLITS = {"train": ("train",), "probe": ("probe",), "test": ("test", "validation", "val")}
_IMAGES, _LABELS = ("image", "img", "images"), ("label", "labels", "fine_label")
_SAMPLE = 64  # headers that are read to learn what kind of images there are


class HubSource(Source):
    """Rows of a table whose images are encoded files, decoded one at a time.

    Args:
        rows: a ``datasets.Dataset`` with the one column ``image``, not decoded.
        targets, class_names, record: as of every source.
        positions: Int[N], which rows; None = all.
    """

    def __init__(
        self,
        rows: Any,
        targets: np.ndarray,
        class_names: Sequence[str],
        record: DataRecord,
        positions: np.ndarray | None = None,
    ) -> None:
        super().__init__(targets, class_names, record)
        self.rows = rows
        self.positions = np.arange(len(targets)) if positions is None else positions

    def load(self, i: int) -> np.ndarray:
        row = int(self.positions[i])
        cell = self.rows[row]["image"] or {}
        try:
            with opened(_file_of(cell), self.max_pixels) as image:
                return decode(image)
        except Damage as error:
            raise CorruptImage(f"row {row} {cell.get('path') or ''}", str(error)) from error

    def subset(self, indices: np.ndarray) -> "HubSource":
        chosen = HubSource(
            self.rows,
            self.targets[indices],
            self.class_names,
            self.record,
            self.positions[indices],
        )
        chosen.stand_ins = None if self.stand_ins is None else self.stand_ins[indices]
        chosen.max_pixels = self.max_pixels
        return chosen


def hub_source(
    path: str | Path, part: str, *, no_labels: bool = False, classes: Sequence[str] | None = None
) -> Source:
    """Open a set, or the split of it that is meant by a part.

    Args:
        path: of the set; a split of one that ``save_to_disk`` wrote is a folder in it.
        part: train, probe or test.
        no_labels: every target is -1.
        classes: names by class id of the training part; None = they are found here, and every
            class must have an image.

    Raises:
        UserError: ``datasets`` is not installed, no such set or split, no column of images, or of
            labels, a class without an image, other classes than those of the training part.
    """
    table = _split(_open(Path(path)), Path(path), part)
    if not len(table):
        raise UserError(f"{path}: no image in it.")
    images = _column(table, _IMAGES, "Image", path)
    targets, names = _labels(table, path, classes) if not no_labels else (None, number_names(1))
    if targets is None:
        targets = np.full(len(table), -1)
    elif classes is None:
        check_no_empty_class(targets, len(names), path)
    rows = _encoded(table, images)
    record = _record(rows, len(names))
    files = rows[:]["image"] if rows[0]["image"].get("bytes") is None else []
    if files and all(cell.get("bytes") is None and cell.get("path") for cell in files):
        return FileSource([cell["path"] for cell in files], targets, names, record)
    source = HubSource(rows, targets, names, record)
    source.stand_ins = _stand_ins(table, Path(path))
    return source


def _open(path: Path) -> Any:
    """A ``Dataset``, or a ``DatasetDict`` of several splits."""
    spec = importlib.util.find_spec("datasets")
    if spec is None or spec.origin is None:  # without an origin it is a folder of that name here
        raise UserError(
            "data.format: hf needs Hugging Face's datasets, which is not installed. Run "
            f"{install('hub')} in the checkout of ltplugins, or give the images as a folder per "
            f"class (data.format: image_folder)."
        )
    import datasets

    if not path.exists():
        raise UserError(f"no such set: {path}. Expected a folder of datasets, or a .parquet file.")
    is_saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    try:
        if is_saved:
            return datasets.load_from_disk(str(path))
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=str(path), split="train")
        return datasets.load_dataset(str(path))
    except Exception as error:  # of its readers, which share no base
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: datasets cannot read it: {type(error).__name__}: {reason}; expected a folder "
            f"that save_to_disk wrote, a .parquet file, or a folder of parquet files or images."
        ) from None


def _split(found: Any, path: Path, part: str) -> Any:
    if not isinstance(found, dict):
        return found
    names = [name for name in _SPLITS[part] if name in found]
    if len(found) == 1 and not names:
        return next(iter(found.values()))
    if not names:
        raise UserError(
            f"{path}: no split '{_SPLITS[part][0]}' in it for the {part} part; it has "
            f"{', '.join(found)}. Save the one that is meant by itself (save_to_disk) and name it."
        )
    return found[names[0]]


def _column(table: Any, names: Sequence[str], kind: str, path: str | Path) -> str:
    """The column of a kind of feature: the only one, or the one with a usual name."""
    features = table.features
    typed = [name for name, feature in features.items() if type(feature).__name__ == kind]
    usual = [name for name in names if name in (typed or features)]
    found = typed if len(typed) == 1 else usual
    if not found:
        what = "images" if kind == "Image" else "labels"
        raise UserError(
            f"{path}: {'several' if typed else 'no'} columns of {what} (type {kind}, or named "
            f"{names[0]}); it has {', '.join(features)}. Rename the one that is meant to "
            f"'{names[0]}'."
            + (" For images without labels set data.no_labels: true." if what == "labels" else "")
        )
    return found[0]


def _labels(
    table: Any, path: str | Path, classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Int[N] targets and C names, from numbers with or without names, or from texts."""
    column = _column(table, _LABELS, "ClassLabel", path)
    values = np.asarray(table[column][:])
    own = getattr(table.features[column], "names", None)
    if values.dtype.kind in "US":
        texts = sorted(set(values.tolist()))
        own = list(classes or texts) + [text for text in texts if text not in (classes or texts)]
        numbers = {name: number for number, name in enumerate(own)}
        values = np.array([numbers[value] for value in values.tolist()])
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise UserError(f"{path}: column {column}: expected whole numbers or texts as labels.")
    if own is not None and classes is not None and list(own) != list(classes):
        strange = sorted(set(own) - set(classes)) or list(own)
        raise UserError(
            f"{path}: class '{strange[0]}' is not where the training part has it, which has "
            f"{len(classes)}: {', '.join(classes[:5])} ..."
        )
    count = len(classes or own or ()) or int(values.max()) + 1
    if values.max() >= MOST_CLASSES:
        raise UserError(f"{path}: expected labels below {MOST_CLASSES:,}, got {values.max()}.")
    if values.max() >= count:
        raise UserError(f"{path}: label {values.max()} found, but there are {count} classes.")
    return values.astype(np.int64), tuple(own or classes or number_names(count))


def _encoded(table: Any, column: str) -> Any:
    """The column of images alone, as bytes or paths."""
    import datasets

    rows = table.select_columns([column])
    rows = rows if column == "image" else rows.rename_column(column, "image")
    return rows.cast_column("image", datasets.Image(decode=False))


def _file_of(cell: Any) -> Any:
    """What can be opened; an empty file where a row has no picture."""
    if cell.get("bytes") is None and cell.get("path"):
        return cell["path"]
    return BytesIO(cell.get("bytes") or b"")


def _record(rows: Any, num_classes: int) -> DataRecord:
    """Size and colour from the headers of a seeded sample."""
    chosen = np.random.RandomState(0).permutation(len(rows))[:_SAMPLE]
    sizes, grey = [], True
    for row in sorted(chosen.tolist()):
        try:
            with opened(_file_of(rows[row]["image"] or {})) as image:
                sizes.append(max(image.size))
                grey = grey and image.mode in GREY_MODES
        except Damage:
            continue
    return custom_record(num_classes, int(np.median(sizes)) if sizes else 224, grey=grey)


def _stand_ins(table: Any, path: Path) -> np.ndarray:
    """Rows that say which picture each is: its set's files, and its place in them."""
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    names = [str(f) for f in files] or [file["filename"] for file in table.cache_files]
    split = str(table.split)  # which may share its files with others
    digest = hashlib.sha256(" ".join([split, *file_hashes(names)]).encode()).digest()
    file = np.frombuffer(digest, dtype="<i8")
    same = np.broadcast_to(file, (len(table), len(file)))
    return np.column_stack([same, np.arange(len(table))])
