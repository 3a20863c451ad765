# SPDX-License-Identifier: MIT
"""Weighted k-nearest-neighbour classification on features, in bounded memory.

Wu, Xiong, Yu, Lin 2018, "Unsupervised feature learning via non-parametric instance discrimination",
https://arxiv.org/abs/1805.01978, section 3.4: the k most cosine-similar bank images vote for their
class with weight exp(similarity / T).

The weights are normalised to a softmax over the k neighbours: the same ranking, and finite at every
temperature, where exp(1 / 0.01) overflows float32.

Legend: N test images, M bank images, D dim, C classes.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.errors import UserError, unknown

Distance = Literal["cosine", "euclidean"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)
MAX_BYTES = 256 * 2**20
EPSILON = 1e-5  # keeps the inverse euclidean distance finite for identical features


def plan_tiles(
    num_test: int, num_bank: int, dim: int, num_classes: int, k: int, max_bytes: int = MAX_BYTES
) -> tuple[int, int]:
    """Return (rows, columns) of a similarity tile that keeps the extra memory under ``max_bytes``.

    A tile of bank columns costs 3 copies of its features (cast, norm, quotient); a tile of rows
    costs its features (3 copies), 2 copies of its similarities, its running k best and its votes.
    """
    word = 4  # everything is computed in float32
    columns = max(1, min(num_bank, max_bytes // 3 // (3 * dim * word)))
    per_row = word * (3 * dim + 2 * columns + 12 * k + 4 * num_classes)
    rows = max(1, min(num_test, max_bytes * 2 // 3 // per_row))
    return rows, columns


@torch.no_grad()
def knn_predict(
    train_feats: Tensor,
    train_targets: Tensor,
    test_feats: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    max_bytes: int = MAX_BYTES,
) -> Tensor:
    """Predict by the cosine-weighted vote of the k nearest bank images.

    Any subset of the classes may occur in the bank or the test set. Equal inputs give equal
    outputs; equal votes go to the smaller class id.

    Args:
        train_feats: Float[M D], the bank; need not be normalised.
        train_targets: Int[M], 0..C-1.
        test_feats: Float[N D]; the work is done on its device.
        num_classes: C.
        k: neighbours that vote, 1..M.
        temperature: T > 0 of the weight exp(similarity / T).
        max_bytes: bound on the extra memory, inputs and outputs not counted.

    Returns:
        Int[N], predicted class ids on the device of ``test_feats``.

    Raises:
        UserError: k, temperature, shapes or labels out of range; features that are not finite.
    """
    parts = iter_votes(
        train_feats,
        train_targets,
        test_feats,
        num_classes=num_classes,
        k=k,
        temperature=temperature,
        max_bytes=max_bytes,
    )
    preds = [votes.argmax(dim=1) for votes in parts]
    return torch.cat(preds) if preds else test_feats.new_zeros(0, dtype=torch.long)


@torch.no_grad()
def knn_votes(
    train_feats: Tensor,
    train_targets: Tensor,
    test_feats: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    distance: Distance = "cosine",
    max_bytes: int = MAX_BYTES,
) -> Tensor:
    """Return each class's share of the vote: Float[N C], rows sum to 1.

    ``distance="euclidean"`` weighs by 1 / (distance + 1e-5) as solo-learn does; the temperature is
    then unused. The other arguments and errors are those of :func:`knn_predict`.
    """
    parts = list(
        iter_votes(
            train_feats,
            train_targets,
            test_feats,
            num_classes=num_classes,
            k=k,
            temperature=temperature,
            distance=distance,
            max_bytes=max_bytes,
        )
    )
    return torch.cat(parts) if parts else test_feats.new_zeros((0, num_classes)).float()


@torch.no_grad()
def iter_votes(
    train_feats: Tensor,
    train_targets: Tensor,
    test_feats: Tensor,
    *,
    num_classes: int,
    k: int,
    temperature: float,
    distance: Distance = "cosine",
    max_bytes: int = MAX_BYTES,
) -> Iterator[Tensor]:
    """Yield :func:`knn_votes` in blocks of consecutive test images, Float[rows C]."""
    _check(train_feats, train_targets, test_feats, num_classes, k, temperature, distance)
    num_bank, dim = train_feats.shape
    rows, columns = plan_tiles(test_feats.shape[0], num_bank, dim, num_classes, k, max_bytes)
    device = test_feats.device
    targets = train_targets.to(device)
    for start in range(0, test_feats.shape[0], rows):
        query = test_feats[start : start + rows]
        # A caller's autocast would compute similarities in bf16 and change the neighbours.
        with torch.autocast(device.type, enabled=False):
            best, indices = _nearest(query, train_feats, k, columns, distance)
        if not torch.isfinite(best).all():
            raise UserError(
                "the features hold NaN or infinite values, so neighbours are undefined; "
                "the backbone has probably diverged: lower its learning rate."
            )
        if distance == "cosine":
            weights = torch.softmax(best / temperature, dim=1)
        else:
            weights = F.normalize(1 / (EPSILON - best), p=1, dim=1)
        votes = weights.new_zeros(weights.shape[0], num_classes)
        # One neighbour at a time: within it every row has one target, so no two additions meet
        # and the sum does not depend on the order in which a GPU's threads arrive.
        for j in range(k):
            label = targets[indices[:, j : j + 1]]
            votes.scatter_(1, label, votes.gather(1, label) + weights[:, j : j + 1])
        yield votes


def _nearest(
    query: Tensor, bank: Tensor, k: int, columns: int, distance: Distance
) -> tuple[Tensor, Tensor]:
    """Return the k best scores and bank indices Float[rows k], Int[rows k], best first.

    The score is the cosine similarity, or the negative euclidean distance.
    """
    query = query.float()
    if distance == "cosine":
        query = F.normalize(query, dim=1)
    best = query.new_empty(query.shape[0], 0)
    indices = torch.empty(query.shape[0], 0, dtype=torch.long, device=query.device)
    for start in range(0, bank.shape[0], columns):
        tile = bank[start : start + columns].to(query.device).float()
        if distance == "cosine":
            scores = query @ F.normalize(tile, dim=1).T
        else:
            scores = torch.cdist(query, tile).neg_()
        values, places = scores.topk(min(k, scores.shape[1]), dim=1)
        del tile, scores  # or the next ones would be made while these are still held
        best = torch.cat([best, values], dim=1)
        indices = torch.cat([indices, places + start], dim=1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        indices = indices.gather(1, order)
    return best, indices


def _check(
    train_feats: Tensor,
    train_targets: Tensor,
    test_feats: Tensor,
    num_classes: int,
    k: int,
    temperature: float,
    distance: str,
) -> None:
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)
    dims = train_feats.ndim, test_feats.ndim
    if dims != (2, 2) or train_feats.shape[1] != test_feats.shape[1]:
        raise UserError(
            "expected bank and test features of shapes (M, D) and (N, D), "
            f"got {tuple(train_feats.shape)} and {tuple(test_feats.shape)}."
        )
    if train_targets.shape != train_feats.shape[:1]:
        raise UserError(
            f"expected one label per bank image, got {tuple(train_targets.shape)} labels "
            f"for {train_feats.shape[0]} images."
        )
    if not 1 <= k <= train_feats.shape[0]:
        raise UserError(
            f"k is {k} but the bank has {train_feats.shape[0]} images; "
            "set knn.k to at least 1 and at most the size of the bank."
        )
    if not temperature > 0:
        raise UserError(f"the kNN temperature is {temperature}: expected more than 0, e.g. 0.07.")
    low, high = int(train_targets.min()), int(train_targets.max())
    if low < 0 or high >= num_classes:
        raise UserError(
            f"bank label {low if low < 0 else high} is outside 0..{num_classes - 1}; leave "
            "unlabelled images (-1) out of the bank."
        )
