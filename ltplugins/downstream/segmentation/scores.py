# SPDX-License-Identifier: MIT
"""Numbers of a segmentation, all from one integer confusion matrix of the whole test set.

A class without a test pixel has no IoU: it is left out of every mean, and named. Elsewhere such a
class counts 0 once it is predicted anywhere; its false positives count here against the classes
that they are taken from.

Rare classes are found twice, by the training images that they are in and by their training pixels:
the thirds of ``metrics.groups``. A small thing in every picture is rare by the second alone.

Legend: C classes, N pixels.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from ltplugins.downstream.segmentation.options import IGNORE
from ltplugins.metrics.groups import shot_groups

GROUPS = {"many": "frequent", "medium": "common", "few": "rare"}
BY = ("images", "pixels")


def confusion(preds: Tensor, masks: Tensor, num_classes: int) -> Tensor:
    """Count pixels: Int[C C], rows are the truth, columns what was predicted.

    Matrices of parts of a set, or of ranks, add up.

    >>> import torch
    >>> confusion(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 255]), 2).tolist()
    [[1, 1], [0, 1]]

    Args:
        preds: Int[N] or of any shape.
        masks: of the same shape, IGNORE = not counted.
        num_classes: C.
    """
    return multiclass_confusion_matrix(
        preds.flatten(), masks.flatten(), num_classes, ignore_index=IGNORE, validate_args=False
    )


def class_iou(matrix: Tensor) -> list[float | None]:
    """Intersection over union of each class, from 0 to 1; None without a pixel of it in the truth.

    >>> import torch
    >>> class_iou(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    [0.75, 0.8, None]
    """
    hits, truth, found = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    union = truth + found - hits
    return [
        int(hit) / int(both) if of_truth else None
        for hit, both, of_truth in zip(hits, union, truth, strict=True)
    ]


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def frequency_groups(counts: Sequence[int]) -> dict[str, list[int]]:
    """Classes by training counts: thirds called frequent, common and rare."""
    thirds = shot_groups(counts, "tercile")
    return {name: thirds[shot] for shot, name in GROUPS.items()}


def pixel_scores(
    matrix: Tensor, image_counts: Sequence[int], pixel_counts: Sequence[int]
) -> dict[str, Any]:
    """All numbers of a matrix.

    Args:
        matrix: Int[C C], see :func:`confusion`.
        image_counts, pixel_counts: Int[C], of the training masks.

    Returns:
        ``miou``, ``accuracy``, ``per_class``, ``absent`` (class ids), ``members`` and ``groups``:
        by images and by pixels, the class ids and the mean IoU of frequent, common and rare.
    """
    per_class = class_iou(matrix)
    counts = {"images": image_counts, "pixels": pixel_counts}
    members = {by: frequency_groups(counts[by]) for by in BY}
    groups = {
        by: {name: mean_of([per_class[c] for c in labels]) for name, labels in found.items()}
        for by, found in members.items()
    }
    pixels = int(matrix.sum())
    return {
        "miou": mean_of(per_class),
        "accuracy": int(matrix.diagonal().sum()) / pixels if pixels else None,
        "per_class": per_class,
        "absent": [c for c, value in enumerate(per_class) if value is None],
        "members": members,
        "groups": groups,
    }
