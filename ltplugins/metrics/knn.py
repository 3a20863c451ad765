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
from einops import rearrange
from torch import Tensor

from ltplugins.core.errors import UserError, unknown

Distance = Literal["cosine", "euclidean"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)
MAX_BYTES = 256 * 2**20
EPSILON = 1e-5  # keeps the inverse euclidean distance finite for identical features


def plan_tiles(
    num_test: int, num_bank: int, dim: int, num_classes: int, k: int, max_bytes: int = MAX_BYTES
) -> tuple[int, int, int]:
    """Return (rows, columns, chunk): a tile of similarities, and how many columns are made at once.

    Bank images are cast and normalised a chunk at a time (4 copies of its features; 2,048 of them
    keep a matrix product in a core's cache). Wide tiles make the search for the k best cheap, some
    hundred rows the product; the extra memory stays under ``max_bytes``.
    """
    word = 4  # everything is computed in float32
    chunk = max(1, min(num_bank, _CHUNK, max_bytes // 4 // (4 * dim * word)))
    left = max_bytes * 3 // 4

    def per_row(columns: int) -> int:
        best = 3 * k * (_GROUP + 2)  # candidates: value, and place of eight bytes
        return word * (3 * dim + columns + columns // _GROUP + best + 4 * num_classes)

    fixed = per_row(0)
    wanted = max(1, min(num_test, _ROWS, left // (2 * fixed)))
    columns = int((left // wanted - fixed) / word / (1 + 1 / _GROUP))
    columns = max(1, min(num_bank, columns, max(chunk, columns // chunk * chunk)))
    rows = max(1, min(num_test, left // per_row(columns)))
    return rows, columns, min(chunk, columns)


_CHUNK, _GROUP, _ROWS = 2048, 16, 512


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

    >>> bank, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), torch.tensor([0, 1, 1])
    >>> test = torch.tensor([[2.0, 0.1], [0.5, 3.0]])
    >>> knn_predict(bank, labels, test, num_classes=2, k=2).tolist()
    [0, 1]

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
    """Yield each class's share of the vote in blocks of test images: Float[n C], rows sum to 1.

    ``distance="euclidean"`` weighs by 1 / (distance + 1e-5) as solo-learn does; the temperature is
    then unused. The other arguments and errors are those of :func:`knn_predict`.
    """
    _check(train_feats, train_targets, test_feats, num_classes, k, temperature, distance)
    num_bank, dim = train_feats.shape
    rows, columns, chunk = plan_tiles(len(test_feats), num_bank, dim, num_classes, k, max_bytes)
    device = test_feats.device
    norms = _norms(train_feats, chunk, device) if distance == "cosine" else None
    tile = torch.empty(rows, columns, device=device)  # once: new pages cost as much as the search
    targets = train_targets.to(device)
    for start in range(0, test_feats.shape[0], rows):
        query = test_feats[start : start + rows]
        # A caller's autocast would compute similarities in bf16 and change the neighbours.
        with torch.autocast(device.type, enabled=False):
            best, indices = _nearest(query, train_feats, norms, k, tile, chunk)
        _refuse_what_is_not_finite(best)
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


def _refuse_what_is_not_finite(best: Tensor) -> None:
    if not torch.isfinite(best).all():
        raise UserError(
            "the features hold NaN or infinite values, so neighbours are undefined; "
            "the backbone has probably diverged: lower its learning rate."
        )


def _norms(bank: Tensor, chunk: int, device: torch.device) -> Tensor:
    """Float[M 1]: lengths of the bank's features, never zero."""
    parts = [part.to(device).float().norm(dim=1, keepdim=True) for part in bank.split(chunk)]
    return torch.cat(parts).clamp_min_(1e-12)


def _nearest(
    query: Tensor, bank: Tensor, norms: Tensor | None, k: int, tile: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Return the k best scores and bank indices Float[rows k], Int[rows k], best first.

    The score is the cosine similarity, or without ``norms`` the negative euclidean distance.
    ``tile`` Float[>=rows columns] is written over.
    """
    query = query.float()
    if norms is not None:
        query = F.normalize(query, dim=1)
    best = query.new_empty(query.shape[0], 0)
    indices = torch.empty(query.shape[0], 0, dtype=torch.long, device=query.device)
    for start in range(0, bank.shape[0], tile.shape[1]):
        width = min(tile.shape[1], bank.shape[0] - start)
        scores = tile[: len(query), :width]
        for first in range(0, width, chunk):
            part = slice(start + first, start + min(first + chunk, width))
            feats = bank[part].to(query.device).float()
            place = scores[:, first : first + len(feats)]
            if norms is not None:
                torch.mm(query, (feats / norms[part]).T, out=place)
            else:
                torch.neg(torch.cdist(query, feats), out=place)
        values, places = _top_k(scores, k)
        best = torch.cat([best, values], dim=1)
        indices = torch.cat([indices, places + start], dim=1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        indices = indices.gather(1, order)
    return best, indices


def _top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``scores.topk(k, dim=1)``, of fewer columns where there are fewer; faster on wide rows.

    The k best lie in the k groups of columns whose best are largest. Group g of G holds the columns
    g, g + G, g + 2 G, ...: its maximum is taken over whole rows of memory.
    """
    groups = scores.shape[1] // _GROUP
    if groups < 4 * k:
        return scores.topk(min(k, scores.shape[1]), dim=1)
    in_groups = rearrange(
        scores[:, : groups * _GROUP], "test (member group) -> test member group", member=_GROUP
    )
    chosen = in_groups.amax(dim=1).topk(k, dim=1, sorted=False).indices
    starts = torch.arange(0, groups * _GROUP, groups, device=scores.device)
    rest = torch.arange(groups * _GROUP, scores.shape[1], device=scores.device)
    columns = rearrange(
        starts[:, None] + chosen[:, None, :], "test member best -> test (member best)"
    )
    columns = torch.cat([columns, rest.expand(len(scores), -1)], dim=1)
    values, places = scores.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, places)


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
