# SPDX-License-Identifier: MIT
"""Whether a classifier's confidence is its accuracy, and which shot group is taken for which.

Expected calibration error and temperature scaling: Guo et al., "On Calibration of Modern Neural
Networks", ICML 2017, https://arxiv.org/abs/1706.04599. The table of bins gives the error and the
reliability diagram alike; torchmetrics has the error alone.

Legend: N images, C classes, B bins.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from ltplugins.metrics.groups import GROUPS

BINS = 15
_LOG_RANGE = (-4.0, 4.0)  # of the temperature: from 0.02 to 55


def reliability(probs: Tensor, targets: Tensor, bins: int = BINS) -> list[list[float]]:
    """Images, mean confidence and accuracy of each bin of confidence, of equal width in (0, 1].

    >>> probs, targets = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), torch.tensor([0, 1, 1])
    >>> [[round(x, 2) for x in row] for row in reliability(probs, targets, bins=2)]
    [[0.0, 0.0, 0.0], [3.0, 0.8, 0.67]]

    Args:
        probs: Float[N C], the top one's is the confidence.
        targets: Int[N], 0..C-1.

    Returns:
        B rows; those of empty bins are 0.
    """
    confidence, preds = probs.double().max(dim=1)
    return table_of(confidence, preds == targets, bins)


def table_of(confidence: Tensor, is_right: Tensor, bins: int = BINS) -> list[list[float]]:
    """The rows of :func:`reliability` from each image's confidence, Float[N], and Bool[N]."""
    confidence = confidence.double()
    place = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    images = torch.bincount(place, minlength=bins).double()
    sums = torch.zeros(2, bins, dtype=torch.float64, device=confidence.device)
    sums[0].index_add_(0, place, confidence)
    sums[1].index_add_(0, place, is_right.double())
    means = sums / images.clamp(min=1)
    return torch.stack([images, *means], dim=1).tolist()


def calibration_error(table: Sequence[Sequence[float]]) -> float | None:
    """Mean of |accuracy - confidence| over the bins, weighted by their images; None without any.

    >>> calibration_error([[1, 0.5, 1.0], [3, 0.9, 0.9]])
    0.125
    """
    images = sum(row[0] for row in table)
    if not images:
        return None
    return sum(n * abs(hit - confidence) for n, confidence, hit in table) / images


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The T that minimises the cross-entropy of logits / T, each class counting alike.

    On a long-tailed validation part the head would otherwise decide for all. One number: the
    predictions stay what they are.

    Args:
        logits: Float[N C], of images that the classifier was not trained on.
        targets: Int[N], 0..C-1.
    """
    logits = logits.double().cpu()
    targets = targets.cpu()
    weights = 1 / torch.bincount(targets, minlength=logits.shape[1]).clamp(min=1).double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / np.exp(log_temperature), targets, weights))

    found = minimize_scalar(loss, bounds=_LOG_RANGE, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def group_confusion(
    preds: Tensor, targets: Tensor, groups: Mapping[str, Sequence[int]]
) -> list[list[int]]:
    """Int[3 3]: images of many, medium and few (rows) that are taken for which (columns).

    What is right and what is mistaken within a group both stand on the diagonal.

    >>> groups = {"many": [0], "medium": [1], "few": [2]}
    >>> group_confusion(torch.tensor([0, 0, 2]), torch.tensor([0, 2, 2]), groups)
    [[1, 0, 0], [0, 0, 0], [1, 0, 1]]

    Args:
        preds, targets: Int[N], class ids that the groups hold.
        groups: class ids under "many", "medium", "few".
    """
    of_class = torch.zeros(1 + max(c for name in GROUPS for c in groups[name]), dtype=torch.long)
    for row, name in enumerate(GROUPS):
        of_class[list(groups[name])] = row
    places = len(GROUPS) * of_class[targets.cpu()] + of_class[preds.cpu()]
    counts = torch.bincount(places, minlength=len(GROUPS) ** 2)
    return counts.reshape(len(GROUPS), len(GROUPS)).tolist()
