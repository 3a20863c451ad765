# SPDX-License-Identifier: MIT
"""Whether confidence is accuracy, overall and by shot group, and which group is taken for which.

The expected calibration error is that of Guo et al., "On Calibration of Modern Neural Networks",
ICML 2017, https://arxiv.org/abs/1706.04599, by torchmetrics, from each image's largest probability:
all probabilities of iNaturalist's 8,142 classes would take 0.8 GB.

Legend: N test images, C classes, G groups.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_confusion_matrix,
)

from ltplugins.metrics.groups import GROUPS

BINS = 15  # of equal width


class Predictions(NamedTuple):
    """Int[N] predicted classes, and Float[N], the probability that each was given."""

    preds: Tensor
    confidence: Tensor


def top_class(scores: Tensor) -> Predictions:
    """The class with the largest score of each row; of equal ones the one with the smaller id.

    Args:
        scores: Float[N C], rows sum to 1.
    """
    preds = scores.argmax(dim=1)
    return Predictions(preds.cpu(), scores.gather(1, preds[:, None])[:, 0].float().cpu())


def calibration_error(found: Predictions, targets: Tensor) -> float | None:
    """Mean over bins of confidence of |accuracy - confidence|, weighted by images; None without.

    >>> found = Predictions(torch.tensor([0, 1, 1, 1]), torch.tensor([0.5, 0.9, 0.9, 0.9]))
    >>> round(calibration_error(found, torch.tensor([0, 1, 1, 0])), 3)  # (0.5 + 3 x 0.233) / 4
    0.3
    """
    if not len(targets):
        return None
    # What is above 1 by rounding would be taken for a logit.
    confidence, order = found.confidence.clamp(0, 1).sort()
    correct = (found.preds == targets)[order].long()  # in an order that is not the images'
    return float(binary_calibration_error(confidence, correct, n_bins=BINS, norm="l1"))


def group_calibration(
    found: Predictions, targets: Tensor, groups: Mapping[str, Sequence[int]]
) -> dict[str, float | None]:
    """:func:`calibration_error` over the test images of each group's classes.

    Args:
        targets: Int[N].
        groups: class ids under "many", "medium" and "few".
    """
    errors = {}
    for name in GROUPS:
        mine = torch.isin(targets, torch.tensor(list(groups[name]), dtype=targets.dtype))
        own = Predictions(found.preds[mine], found.confidence[mine])
        errors[name] = calibration_error(own, targets[mine])
    return errors


def group_shares(
    preds: Tensor, targets: Tensor, groups: Mapping[str, Sequence[int]], num_classes: int
) -> list[list[float | None]]:
    """Of many, medium and few (rows): the share of test images that is taken for each (columns).

    What is right and what is mistaken within a group both stand on the diagonal. None in the row
    of a group without test images.

    >>> groups = {"many": [0], "medium": [1], "few": [2]}
    >>> group_shares(torch.tensor([0, 0, 2]), torch.tensor([0, 2, 2]), groups, 3)
    [[1.0, 0.0, 0.0], [None, None, None], [0.5, 0.0, 0.5]]

    Args:
        preds, targets: Int[N], class ids.
        groups: class ids under "many", "medium" and "few", each class in one of them.
        num_classes: C.
    """
    group_of = torch.zeros(num_classes, dtype=torch.long)
    for number, name in enumerate(GROUPS):
        group_of[list(groups[name])] = number
    counts = multiclass_confusion_matrix(group_of[preds], group_of[targets], len(GROUPS)).tolist()
    return [[n / sum(row) if sum(row) else None for n in row] for row in counts]
