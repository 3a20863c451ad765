# SPDX-License-Identifier: MIT
"""kNN accuracy during training: `ltplugins.metrics.knn` behind solo-learn's metric interface.

Differences from solo-learn 1.0.6's ``WeightedKNNClassifier`` (which torchmetrics 1 refuses):

* the number of classes is not counted in the test split, so any subset of classes works;
* top-5 counts classes that received a vote; solo-learn fills up with whichever class sorts first.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ltplugins.core.errors import UserError, unknown
from ltplugins.metrics.knn import DISTANCES, Distance, iter_votes

log = logging.getLogger(__name__)


class OnlineKNN(Metric):
    """kNN accuracy during training, with solo-learn's ``WeightedKNNClassifier`` interface.

    Features are stored until :meth:`compute`, which gathers them over ranks, returns
    ``(acc1, acc5)`` in percent and empties the store. Images with target -1 are left out. A bank
    with fewer than k images votes as a whole, with one warning.

    Who wants more than these two numbers sets ``on_predictions``: it is called with predictions and
    targets, Int[N] each, of the test images of all ranks, on every rank.

    Args:
        k: neighbours that vote.
        T: temperature; unused with euclidean distance, where solo-learn's scripts give None.
        distance_fx: ``cosine`` or ``euclidean``.
        num_classes: C; None takes the largest label seen in bank and test.

    Raises:
        UserError: an unknown distance, k < 1 or T <= 0.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    train_features: list[Tensor]
    train_targets: list[Tensor]
    test_features: list[Tensor]
    test_targets: list[Tensor]
    on_predictions: Callable[[Tensor, Tensor], None] | None = None

    def __init__(
        self,
        k: int = 20,
        T: float | None = 0.07,
        distance_fx: Distance = "cosine",
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if distance_fx not in DISTANCES:
            raise unknown("distance", distance_fx, DISTANCES)
        if T is None and distance_fx == "euclidean":
            T = 1.0
        if k < 1 or T is None or not T > 0:
            raise UserError(f"kNN needs k >= 1 and T > 0, got k={k} and T={T}.")
        self.k, self.T, self.distance_fx, self.num_classes = k, T, distance_fx, num_classes
        self._warned = False
        for name in ("train_features", "train_targets", "test_features", "test_targets"):
            self.add_state(name, default=[], dist_reduce_fx="cat", persistent=False)

    def _wrap_compute(self, compute: Callable) -> Callable:
        # The store must be emptied after torchmetrics has restored this rank's own part from the
        # gathered one; a reset inside compute() would be undone there.
        wrapped = super()._wrap_compute(compute)

        @functools.wraps(compute)
        def compute_then_reset(*args: Any, **kwargs: Any) -> Any:
            value = wrapped(*args, **kwargs)
            self.reset()
            return value

        return compute_then_reset

    def forward(
        self,
        train_features: Tensor | None = None,
        train_targets: Tensor | None = None,
        test_features: Tensor | None = None,
        test_targets: Tensor | None = None,
    ) -> None:
        """Store a batch. A Metric's usual forward would also compute on the batch alone."""
        self.update(train_features, train_targets, test_features, test_targets)

    def update(
        self,
        train_features: Tensor | None = None,
        train_targets: Tensor | None = None,
        test_features: Tensor | None = None,
        test_targets: Tensor | None = None,
    ) -> None:
        """Store bank features Float[B D] with Int[B] targets, test features likewise, or both."""
        pairs = (("train", train_features, train_targets), ("test", test_features, test_targets))
        for name, feats, targets in pairs:
            if feats is None and targets is None:
                continue
            if feats is None or targets is None or len(feats) != len(targets):
                raise UserError(f"{name}_features and {name}_targets must come in equal numbers.")
            # How many have a label is asked for at the end alone: on a GPU it is waited for.
            getattr(self, f"{name}_features").append(feats.detach())
            getattr(self, f"{name}_targets").append(targets.detach())

    @torch.no_grad()
    def compute(self) -> tuple[float, float]:
        """Return (acc1, acc5) in percent, or (-1, -1) if bank or test set is empty."""
        stores = self.train_features, self.train_targets, self.test_features, self.test_targets
        if any(isinstance(store, list) and not store for store in stores):
            return -1.0, -1.0
        bank, labels, test, targets = (dim_zero_cat(store) for store in stores)
        (bank, labels), (test, targets) = _labelled(bank, labels), _labelled(test, targets)
        if not len(labels) or not len(targets):
            return -1.0, -1.0
        num_classes = self.num_classes or 1 + int(max(labels.max(), targets.max()))
        if len(labels) < self.k and not self._warned:
            self._warned = True
            log.warning("kNN: k=%d but the bank has %d images; all vote.", self.k, len(labels))
        hits5 = start = 0
        found = []
        parts = iter_votes(
            bank,
            labels,
            test,
            num_classes=num_classes,
            k=min(self.k, len(labels)),
            temperature=self.T,
            distance=self.distance_fx,
        )
        for votes in parts:
            truth = targets[start : start + len(votes), None]
            start += len(votes)
            found.append(votes.argmax(dim=1))
            shares, ranked = votes.topk(min(5, num_classes), dim=1)
            hits5 += int(((ranked == truth) & (shares > 0)).sum())
        preds = torch.cat(found)
        if self.on_predictions is not None:
            self.on_predictions(preds, targets)
        return 100.0 * int((preds == targets).sum()) / start, 100.0 * hits5 / start


def _labelled(feats: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    known = targets >= 0
    return feats[known], targets[known]
