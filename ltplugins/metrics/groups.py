# SPDX-License-Identifier: MIT
"""Shot groups of a long-tailed split, and accuracies over them.

Two rules are in use in the field, and tables that mix them cannot be compared:

* ``threshold``: more than 100, 20 to 100 (both included), fewer than 20 training images
  (Liu et al. 2019, OLTR, https://arxiv.org/abs/1904.05160). Groups can be empty.
* ``tercile``: the classes sorted by training images, cut into thirds
  (Jiang et al. 2021, SDCLR, https://arxiv.org/abs/2106.02990). Never empty from 3 classes on.

Legend: N test images, C classes.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ltplugins.core.errors import UserError, unknown

GROUPS = ("many", "medium", "few")
RULES = {
    "threshold": "many: more than 100 training images, medium: 20 to 100, few: fewer than 20",
    "tercile": "classes sorted by training images (ties by class id), cut into thirds",
}
_SIZES = {"many": "more than 100", "medium": "20 to 100", "few": "fewer than 20"}


def shot_groups(class_counts: Sequence[int] | Tensor, protocol: str) -> dict[str, list[int]]:
    """Assign each class to many, medium or few by its number of *training* images.

    ``tercile`` gives the remainder to the first groups: 100 classes are 34/33/33.

    >>> shot_groups([500, 100, 20, 3], "threshold")
    {'many': [0], 'medium': [1, 2], 'few': [3]}
    >>> shot_groups([500, 100, 20, 3], "tercile")
    {'many': [0, 1], 'medium': [2], 'few': [3]}

    Args:
        class_counts: Int[C], training images per class; position = class id.
        protocol: ``threshold`` or ``tercile``.

    Returns:
        Sorted class ids under "many", "medium" and "few". An empty group is an empty list.

    Raises:
        UserError: an unknown protocol, no classes, or a negative count.
    """
    if protocol not in RULES:
        raise unknown("group protocol", protocol, RULES)
    counts = [int(count) for count in class_counts]
    if not counts:
        raise UserError("class_counts is empty: expected one training count per class.")
    for label, count in enumerate(counts):
        if count < 0:
            raise UserError(f"class_counts[{label}] is {count}: expected 0 or more images.")
    if protocol == "threshold":
        return {
            "many": [c for c, n in enumerate(counts) if n > 100],
            "medium": [c for c, n in enumerate(counts) if 20 <= n <= 100],
            "few": [c for c, n in enumerate(counts) if n < 20],
        }
    ranked = rank_classes(counts)
    size, rest = divmod(len(counts), 3)
    ends = [size + (rest > 0), 2 * size + min(rest, 2)]
    thirds = ranked[: ends[0]], ranked[ends[0] : ends[1]], ranked[ends[1] :]
    return {name: sorted(third) for name, third in zip(GROUPS, thirds, strict=True)}


def rank_classes(class_counts: Sequence[int] | Tensor) -> list[int]:
    """Return class ids by training count, largest first, ties by class id."""
    counts = [int(count) for count in class_counts]
    return sorted(range(len(counts)), key=lambda label: (-counts[label], label))


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracies as fractions from 0 to 1; ``None`` is "n/a": there is nothing to average.

    Attributes:
        overall: top-1 over all test images.
        per_class: one per class; None where the class has no test image.
        many, medium, few: top-1 over the test images of the group's classes. On a balanced test
            set this equals the mean of the classes' accuracies.
        group_std: population standard deviation of the available group accuracies
            (0 = every group is served alike); None with fewer than two groups.
        class_std: population standard deviation of the available per-class accuracies.
        balanced: mean of the available per-class accuracies.
        harmonic: their harmonic mean, 0 where one is 0.
        min_class: the smallest of them.
    """

    overall: float
    per_class: list[float | None]
    many: float | None
    medium: float | None
    few: float | None
    group_std: float | None
    class_std: float
    balanced: float
    harmonic: float
    min_class: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)


def class_hits(preds: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Count per class: Int[C 2] with the test images that were hit and all test images.

    Every number here follows from this matrix, and matrices of parts of a test set add up.
    A full confusion matrix would take 0.5 GB at iNaturalist's 8,142 classes.

    Raises:
        UserError: shapes that differ, an empty test set, or a label outside 0..C-1.
    """
    if preds.shape != targets.shape or targets.ndim != 1:
        raise UserError(
            f"expected one prediction per test image, got {tuple(preds.shape)} predictions "
            f"for {tuple(targets.shape)} targets."
        )
    if targets.numel() == 0:
        raise UserError("the test set is empty: there is nothing to evaluate.")
    for name, labels in (("test label", targets), ("prediction", preds)):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise UserError(
                f"{name} {low if low < 0 else high} is outside 0..{num_classes - 1}; "
                "unlabelled images (-1) cannot be scored, leave them out of the test set."
            )
    hits = torch.bincount(targets[preds == targets], minlength=num_classes)
    return torch.stack([hits, torch.bincount(targets, minlength=num_classes)], dim=1)


def group_scores(matrix: Tensor, groups: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    """Top-1 accuracy over the test images of each group's classes, from 0 to 1.

    Args:
        matrix: Int[C 2], as :func:`class_hits` returns it.
        groups: class ids by name.

    Returns:
        One number a group; None where its classes have no test image.
    """
    sums = {name: matrix[list(labels)].sum(dim=0).tolist() for name, labels in groups.items()}
    return {name: hit / total if total else None for name, (hit, total) in sums.items()}


def group_accuracy(
    preds: Tensor, targets: Tensor, groups: Mapping[str, Sequence[int]], num_classes: int
) -> GroupAccuracy:
    """Score predictions overall, per class and per shot group.

    >>> preds, targets = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 1, 2])
    >>> score = group_accuracy(preds, targets, shot_groups([500, 50, 5], "threshold"), 3)
    >>> score.overall, score.many, score.few, round(score.balanced, 3)
    (0.75, 1.0, 0.0, 0.667)

    Args:
        preds: Int[N], predicted class ids.
        targets: Int[N], true class ids, 0..C-1.
        groups: class ids under "many", "medium", "few", as :func:`shot_groups` returns them; with
            no class in any of them every group is n/a.
        num_classes: C; classes without a test image are n/a.

    Raises:
        UserError: see :func:`class_hits`; or groups that do not hold every class exactly once.
    """
    listed = sorted(label for name in GROUPS for label in groups.get(name, ()))
    if listed and listed != list(range(num_classes)):
        raise UserError(
            f"the groups must hold each of the {num_classes} classes exactly once, "
            f"got {len(listed)} entries; build them with shot_groups(class_counts, protocol)."
        )
    matrix = class_hits(preds, targets, num_classes)
    per_class = [hit / total if total else None for hit, total in matrix.tolist()]
    hits, images = matrix.sum(dim=0).tolist()
    scores = group_scores(matrix, {name: groups.get(name, ()) for name in GROUPS})
    known = [value for value in scores.values() if value is not None]
    classes = [value for value in per_class if value is not None]
    return GroupAccuracy(
        overall=hits / images,
        per_class=per_class,
        group_std=statistics.pstdev(known) if len(known) > 1 else None,
        class_std=statistics.pstdev(classes),
        balanced=statistics.fmean(classes),
        harmonic=statistics.harmonic_mean(classes),
        min_class=min(classes),
        **scores,
    )


def explain_missing(
    groups: Mapping[str, Sequence[int]], test_counts: Sequence[int], protocol: str
) -> list[str]:
    """Say why a group is n/a and which way out there is; one line per group, none if all are there.

    Args:
        groups: as :func:`shot_groups` returns them.
        test_counts: Int[C], test images per class.
        protocol: the rule that made the groups.
    """
    lines = []
    for name in GROUPS:
        labels = list(groups.get(name, ()))
        start = f"{name} is n/a under the {protocol} rule:"
        if not labels and protocol == "threshold":
            lines.append(
                f"{start} no class has {_SIZES[name]} training images; "
                "set groups to [tercile] for groups of equal size."
            )
        elif not labels:
            lines.append(f"{start} thirds need 3 classes, there are {len(test_counts)}.")
        elif not any(test_counts[label] for label in labels):
            shown = ", ".join(str(label) for label in labels[:5])
            dots = ", ..." if len(labels) > 5 else ""
            lines.append(
                f"{start} its classes ({shown}{dots}) have no test image; "
                "evaluate on a test set that holds them."
            )
    return lines
