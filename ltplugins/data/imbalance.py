# SPDX-License-Identifier: MIT
"""Long-tailed subsets: how many images each class keeps, and which ones.

``exp`` with ``split_seed`` 0 and natural class order is the split of Cao et al., "Learning
Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019
(https://arxiv.org/abs/1906.07413; https://github.com/kaidic/LDAM-DRW, ``imbalance_cifar.py``).
Difference: the random state is local, the global one of NumPy is never touched.

Legend: C classes, N images.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, AtLeast, Note, Seed
from ltplugins.core.schema import Section
from ltplugins.data.index_file import read_index_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImbalanceConfig(Section):
    """The ``data.imbalance`` block.

    Attributes:
        kind: form of the class profile; ``file`` reads an index list, ``none`` keeps everything.
        factor: largest class count / smallest class count (100, not 0.01).
        split_seed: which images of a class stay.
        class_order: which class becomes head and which tail: ``natural`` (class 0 is the largest)
            or the seed of a permutation.
        max_count: images of the largest class; null = N / C rounded down.
        alpha: power of the ``pareto`` profile.
        path: the index list of ``file``: one index a line, or ``.npy``.
        sha256: expected hash of the resulting index list; checked where given.
    """

    kind: Literal["exp", "step", "pareto", "file", "none"] = "none"
    factor: Annotated[float, AtLeast(1), Note("100, not 0.01")] = 100.0
    split_seed: Seed = 0
    class_order: Literal["natural"] | Seed = "natural"
    max_count: Annotated[int, AtLeast(1)] | None = None
    alpha: Annotated[float, Above(0)] = 6.0
    path: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Split:
    """A subset of a source: ``indices`` Int[N], ``class_counts`` Int[C] by class id."""

    indices: np.ndarray
    class_counts: np.ndarray
    hash: str
    description: str


def exponential_counts(max_count: int, num_classes: int, factor: float) -> list[int]:
    """Count images by class rank k: int(max_count * factor^(-k / (C - 1))).

    >>> exponential_counts(500, 5, factor=100)
    [500, 158, 50, 15, 5]
    """
    last = max(num_classes - 1, 1)
    # Written as LDAM writes it, with the reciprocal: int() must see the same last bit.
    return [int(max_count * (1.0 / factor) ** (k / last)) for k in range(num_classes)]


def step_counts(max_count: int, num_classes: int, factor: float) -> list[int]:
    """Let the first half of the ranks keep max_count images, the others int(max_count / factor).

    >>> step_counts(500, 5, factor=10)
    [500, 500, 50, 50, 50]
    """
    head = num_classes // 2 if num_classes > 1 else 1
    return [max_count] * head + [int(max_count * (1.0 / factor))] * (num_classes - head)


def pareto_counts(max_count: int, num_classes: int, factor: float, alpha: float = 6.0) -> list[int]:
    """Count images by a Pareto (Lomax) profile of class rank k: int(max_count * (1 + c k)^-alpha).

    c is chosen so that the last rank has max_count / factor. Power 6 is what ImageNet-LT (Liu et
    al., CVPR 2019, https://arxiv.org/abs/1904.05160) names; its exact subset is a published list,
    so use ``file_list`` with that list to work on it.

    >>> pareto_counts(1280, 5, factor=256)
    [1280, 185, 43, 13, 5]
    """
    c = (factor ** (1.0 / alpha) - 1.0) / max(num_classes - 1, 1)
    # The tiny term keeps an exact quotient (500 / 100) from truncating to the integer below.
    return [int(max_count * (1.0 + c * k) ** -alpha + 1e-9) for k in range(num_classes)]


def select_indices(targets: np.ndarray, counts: Sequence[int], seed: int) -> np.ndarray:
    """Choose ``counts[c]`` images of each class c at random, as the LDAM split does.

    Args:
        targets: Int[N], class of each image; -1 = no label, never chosen.
        counts: images to keep, by class id.
        seed: of a local RandomState.

    Returns:
        Int[sum of counts], concatenated in ascending class order.

    Raises:
        UserError: a class has fewer images than asked, or labels and counts disagree.
    """
    targets = np.asarray(targets, dtype=np.int64)
    classes = np.unique(targets[targets >= 0])
    if len(classes) and classes[-1] >= len(counts):
        raise UserError(f"label {classes[-1]} found, but only {len(counts)} class counts given.")
    rng = np.random.RandomState(seed)
    chosen = []
    for c in classes:
        positions = np.where(targets == c)[0]
        rng.shuffle(positions)
        if counts[c] > len(positions):
            raise UserError(
                f"class {c}: {counts[c]} images asked, {len(positions)} available. Lower "
                f"data.imbalance.max_count, or use another factor or class_order."
            )
        chosen.append(positions[: counts[c]])
    absent = [c for c in range(len(counts)) if counts[c] > 0 and c not in set(classes.tolist())]
    if absent:
        raise UserError(f"class {absent[0]}: {counts[absent[0]]} images asked, 0 available.")
    return np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)


def hash_indices(indices: np.ndarray) -> str:
    """Hash an index list as little-endian int64, the same on every machine."""
    return hashlib.sha256(np.ascontiguousarray(indices, dtype="<i8").tobytes()).hexdigest()


def class_order(order: str | int, num_classes: int) -> np.ndarray:
    """Order class ids from head to tail, Int[C]: ``natural``, or by the seed of a permutation.

    >>> class_order("natural", 4).tolist(), class_order(3, 4).tolist()
    ([0, 1, 2, 3], [3, 1, 0, 2])
    """
    if order == "natural":
        return np.arange(num_classes)
    return np.random.RandomState(int(order)).permutation(num_classes)


def make_split(targets: np.ndarray, num_classes: int, cfg: ImbalanceConfig | None) -> Split:
    """Select the long-tailed subset that a ``data.imbalance`` block describes.

    Args:
        targets: Int[N], -1 = no label.
        num_classes: C.
        cfg: the ``data.imbalance`` block; None keeps everything.

    >>> labels = np.repeat([0, 1, 2], 100)
    >>> split = make_split(labels, 3, ImbalanceConfig(kind="exp", factor=100))
    >>> len(split.indices), split.class_counts.tolist()
    (111, [100, 10, 1])

    Raises:
        UserError: a block that does not fit the data, a bad index file, a hash that differs.
    """
    cfg = cfg or ImbalanceConfig()
    targets = np.asarray(targets, dtype=np.int64)
    if cfg.kind == "none":
        indices, description = np.arange(len(targets)), "all images"
    elif cfg.kind == "file":
        indices = read_index_file(cfg.path, len(targets))
        description = f"index list {cfg.path}"
    else:
        indices = select_indices(
            targets, _counts_by_class(targets, num_classes, cfg), cfg.split_seed
        )
        description = (
            f"{cfg.kind}, factor {cfg.factor:g}, split_seed {cfg.split_seed}, "
            f"class_order {cfg.class_order}"
        )
    digest = hash_indices(indices)
    if cfg.sha256 and cfg.sha256 != digest:
        raise UserError(
            f"data.imbalance.sha256: the split is not the expected one; expected {cfg.sha256}, "
            f"found {digest}. Check the source, split_seed and class_order, or remove the key."
        )
    labelled = targets[indices][targets[indices] >= 0]
    class_counts = np.bincount(labelled, minlength=num_classes).astype(np.int64)
    log.info("split: %d images (%s), hash %s", len(indices), description, digest[:12])
    return Split(indices, class_counts, digest, description)


def _counts_by_class(targets: np.ndarray, num_classes: int, cfg: ImbalanceConfig) -> list[int]:
    labelled = int((targets >= 0).sum())
    if labelled == 0:
        raise UserError(
            f"data.imbalance.kind {cfg.kind} needs labels, and the source has none "
            f"(data.no_labels). Give labels, or use kind: file."
        )
    if cfg.max_count is None and labelled < num_classes:
        raise UserError(
            f"data.imbalance.max_count: expected a number of images, for the source has "
            f"{labelled} of {num_classes} classes; got null. Set it, or use kind: none."
        )
    max_count = cfg.max_count if cfg.max_count is not None else labelled // num_classes
    if cfg.kind == "exp":
        by_rank = exponential_counts(max_count, num_classes, cfg.factor)
    elif cfg.kind == "step":
        by_rank = step_counts(max_count, num_classes, cfg.factor)
    else:
        by_rank = pareto_counts(max_count, num_classes, cfg.factor, cfg.alpha)
    order = class_order(cfg.class_order, num_classes)
    if by_rank[-1] < 1:
        raise UserError(
            f"data.imbalance: factor {cfg.factor:g} leaves class {order[-1]} without an image "
            f"({max_count} in the largest class). Use a factor of at most {max_count}."
        )
    counts = [0] * num_classes
    for rank, c in enumerate(order):
        counts[c] = by_rank[rank]
    return counts
