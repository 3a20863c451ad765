# SPDX-License-Identifier: MIT
"""Sources in memory: an .npz or .npy file, or arrays from code."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltplugins.core.arrays import open_archive, read_array
from ltplugins.core.errors import UserError
from ltplugins.data.sources.base import (
    MOST_CLASSES,
    ArraySource,
    check_no_empty_class,
    number_names,
)
from ltplugins.data.sources.records import DataRecord, custom_record


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray | None,
    *,
    class_names: Sequence[str] | None = None,
    record: DataRecord | None = None,
    num_classes: int | None = None,
    where: str = "arrays",
) -> ArraySource:
    """Make a source of arrays.

    Args:
        images: uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3].
        labels: integers [N]; None = no labels.
        class_names: names by class id.
        record: statistics; None = ImageNet's, with the stem chosen by the image size.
        num_classes: of the training part, for a part that need not show every class; None = found
            from the labels, and every class must have an image.
        where: for messages.

    >>> source = from_arrays(np.zeros((4, 32, 32, 3), np.uint8), np.array([0, 1, 1, 2]))
    >>> len(source), source.num_classes, source.load(3).shape
    (4, 3, (32, 32, 3))

    Raises:
        UserError: wrong shape or type, lengths that differ, a bad label, a class without image.
    """
    images = _check_images(np.asanyarray(images), where)
    if labels is None:
        targets, found = np.full(len(images), -1, dtype=np.int64), 1
    else:
        targets = _check_labels(np.asarray(labels), len(images), where)
        found = int(targets.max()) + 1
        known = len(class_names) if class_names is not None else num_classes
        if known is not None and found > known:
            raise UserError(f"{where}: label {found - 1} found, but there are {known} classes.")
        if num_classes is None:
            found = max(found, known or 0)
            check_no_empty_class(targets, found, where)
    count = num_classes or found
    names = tuple(class_names) if class_names is not None else number_names(count)
    record = record or custom_record(count, max(images.shape[1:3]), grey=_is_grey(images))
    return ArraySource(images, targets, names, record)


def arrays_from_path(
    path: str | Path, *, no_labels: bool = False, num_classes: int | None = None
) -> ArraySource:
    """Read ``X.npz`` (keys images and labels) or ``X.npy`` with ``X_labels.npy`` beside it.

    Raises:
        UserError: as :func:`from_arrays`, and for files or keys that are absent or unreadable.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: {path}. Expected an .npz or .npy file of images.")
    images, labels = _read(path, no_labels)
    return from_arrays(images, labels, num_classes=num_classes, where=str(path))


def _read(path: Path, no_labels: bool) -> tuple[np.ndarray, np.ndarray | None]:
    if path.suffix == ".npy":
        images = read_array(path, mapped=True)
        beside = path.with_name(f"{path.stem}_labels.npy")
        if no_labels:
            return images, None
        if not beside.is_file():
            raise UserError(f"no such file: {beside}, the labels of {path.name}.")
        return images, read_array(beside)
    with open_archive(path) as archive:
        for key in ("images",) if no_labels else ("images", "labels"):
            if key not in archive.files:
                raise UserError(
                    f"{path}: no array '{key}' in it; found {', '.join(archive.files) or 'none'}. "
                    f"Expected images (uint8 N,H,W[,3]) and labels (integers N)."
                )
        return archive["images"], None if no_labels else archive["labels"]


def _is_grey(images: np.ndarray) -> bool:
    """Whether there is one channel, or a sample of the images has three that are equal."""
    if images.ndim == 3:
        return True
    some = images[:: max(1, len(images) // 32)]
    return bool((some == some[..., :1]).all())


def _check_images(images: np.ndarray, where: str) -> np.ndarray:
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise UserError(
            f"{where}: images: expected shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), "
            f"got {images.shape}. Channels come last: np.transpose(images, (0, 2, 3, 1))."
        )
    if images.dtype != np.uint8:
        raise UserError(
            f"{where}: images: expected uint8 in 0..255, got {images.dtype}. "
            f"For floats in [0, 1]: (images * 255).round().astype('uint8')."
        )
    if 0 in images.shape:
        raise UserError(f"{where}: images: no image in it, shape {images.shape}.")
    return images


def _check_labels(labels: np.ndarray, size: int, where: str) -> np.ndarray:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{where}: labels: expected a one-dimensional integer array, "
            f"got {labels.dtype} of shape {labels.shape}."
        )
    if len(labels) != size:
        raise UserError(f"{where}: {size} images, but {len(labels)} labels.")
    labels = labels.astype(np.int64)
    if labels.min() < 0:
        position = int(np.argmax(labels < 0))
        raise UserError(
            f"{where}: labels[{position}] is {labels[position]}; labels start at 0. "
            f"For images without labels set data.no_labels: true."
        )
    if labels.max() >= MOST_CLASSES:
        position = int(np.argmax(labels >= MOST_CLASSES))
        raise UserError(
            f"{where}: labels[{position}] is {labels[position]}: expected classes that are "
            f"numbered from 0, at most {MOST_CLASSES:,} of them."
        )
    return labels
