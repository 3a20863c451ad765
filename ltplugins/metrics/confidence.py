# SPDX-License-Identifier: MIT
"""Whether confidence is accuracy, overall and by shot group, from the confidence alone.

The expected calibration error is that of ``metrics/calibration.py``, from each image's largest
probability: all probabilities of iNaturalist's 8,142 classes would take 0.8 GB.

Legend: N test images, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ltplugins.metrics.calibration import calibration_error, table_of
from ltplugins.metrics.groups import GROUPS


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


def ece(found: Predictions, targets: Tensor) -> float | None:
    """Mean over bins of confidence of |accuracy - confidence|, weighted by images; None without.

    >>> found = Predictions(torch.tensor([0, 1, 1, 1]), torch.tensor([0.5, 0.9, 0.9, 0.9]))
    >>> round(ece(found, torch.tensor([0, 1, 1, 0])), 3)  # (0.5 + 3 x 0.233) / 4
    0.3
    """
    return calibration_error(table_of(found.confidence, found.preds == targets))


def group_ece(
    found: Predictions, targets: Tensor, groups: Mapping[str, Sequence[int]]
) -> dict[str, float | None]:
    """:func:`ece` over the test images of each group's classes.

    Args:
        targets: Int[N].
        groups: class ids under "many", "medium" and "few".
    """
    errors = {}
    for name in GROUPS:
        mine = torch.isin(targets, torch.tensor(list(groups[name]), dtype=targets.dtype))
        own = Predictions(found.preds[mine], found.confidence[mine])
        errors[name] = ece(own, targets[mine])
    return errors
