# SPDX-License-Identifier: MIT
"""Accuracy of the many-, medium- and few-shot classes while a test set goes by in batches.

Legend: N test images of a batch, C classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ltplugins.metrics.groups import class_hits, group_scores, shot_groups


class ShotAccuracy(Metric):
    """Top-1 accuracy in percent, overall and by shot group.

    The state is two whole numbers a class, images that were hit and all images. They are added up
    over batches and ranks, so that neither the batch size nor how the ranks share the test set has
    an influence. The definitions are those of :mod:`ltplugins.metrics.groups`.

    >>> metric = ShotAccuracy([200, 50, 10], "threshold")
    >>> metric.update(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 2, 2]))
    >>> metric.compute()
    {'overall': 75.0, 'many': 100.0, 'few': 50.0}

    Args:
        class_counts: Int[C], training images per class, which define the groups.
        protocol: ``threshold`` or ``tercile``.

    Raises:
        UserError: as :func:`ltplugins.metrics.groups.shot_groups`.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    hits: Tensor
    total: Tensor

    def __init__(self, class_counts: Sequence[int] | Tensor, protocol: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = shot_groups(class_counts, protocol)
        self.num_classes = len(class_counts)
        for name in ("hits", "total"):
            zeros = torch.zeros(self.num_classes, dtype=torch.long)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, targets: Tensor) -> None:
        """Count a batch.

        Args:
            preds: Int[N], predicted class ids.
            targets: Int[N], true class ids; images with -1 are left out.

        Raises:
            UserError: shapes that differ, or a class id beyond C - 1.
        """
        if preds.shape == targets.shape:
            known = targets != -1
            preds, targets = preds[known], targets[known]
            if not len(targets):
                return
        hits, total = class_hits(preds, targets, self.num_classes).unbind(dim=1)
        self.hits += hits
        self.total += total

    def compute(self) -> dict[str, float]:
        """Percent under "overall", "many", "medium" and "few"; a group without images is absent."""
        matrix = torch.stack([self.hits, self.total], dim=1)
        scores = group_scores(matrix, {"overall": range(self.num_classes), **self.groups})
        return {name: 100 * score for name, score in scores.items() if score is not None}
