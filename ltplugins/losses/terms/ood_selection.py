# SPDX-License-Identifier: MIT
"""COLT's second half: a budget per cluster, more for the tail, and which OOD images fill it.

Paper: Bai et al., "On the Effectiveness of Out-of-Distribution Data in Self-Supervised Long-Tail
Learning", ICLR 2023, https://arxiv.org/abs/2306.04934
Official code: https://github.com/JianhongBai/COLT at 3c4507b

Known differences from the official code:
- The budget's remainder goes to the largest fractions; officially the last cluster gets all of it.
  Clusters of equal means share equally; officially their weights are 0 / 0.
- Beside the official greedy choice, in which early clusters take images that are nearer to later
  ones, there is one that depends on no order (``fair``).

Legend: D dim, C clusters, M OOD images, K budget.
"""

from typing import Literal

import torch
from torch import Tensor

from ltplugins.core.errors import UserError, unknown

ASSIGNMENTS = ("greedy", "fair")


@torch.no_grad()
def budget_weights(cluster_scores: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Share of the budget by cluster: softmax of -(S - mean S) / (std S x temperature).

    Args:
        cluster_scores: Float[C], mean score S of each cluster's images; low = tail.
        temperature: tau_c; small = all to the tail-most cluster, large = equal shares.

    Returns:
        Float64[C], sums to 1; equal shares where all means are equal or C is 1.

    Raises:
        UserError: scores that are not finite, no cluster, a temperature of 0 or less.
    """
    scores = torch.as_tensor(cluster_scores).double()
    if scores.ndim != 1 or not len(scores) or not bool(torch.isfinite(scores).all()):
        raise UserError(
            f"cluster_scores: expected one finite mean per cluster, got {scores.tolist()}."
        )
    if not temperature > 0:
        raise UserError(f"allocate_budget: temperature: expected above 0, got {temperature}.")
    centred = scores - scores.mean()
    spread = centred.std() if len(scores) > 1 else centred.sum()
    if float(spread) <= 1e-12 * max(1.0, float(scores.abs().max())):
        return torch.full_like(scores, 1.0 / len(scores))
    return torch.softmax(-centred / spread / temperature, dim=0)


def allocate_budget(cluster_scores: Tensor, budget: int, *, temperature: float = 1.0) -> Tensor:
    """Whole numbers of OOD images per cluster, by largest remainder.

    A cluster with a lower mean score (more tail) never gets fewer images than one with a higher.
    Lowering one cluster's mean raises its share; rounding can still cost it one image where the
    other fractions change too.

    >>> allocate_budget(torch.tensor([0.9, 0.5, 0.1]), 10).tolist()
    [1, 2, 7]

    Args:
        cluster_scores, temperature: as :func:`budget_weights`.
        budget: K >= 0.

    Returns:
        Int[C], sums to K.

    Raises:
        UserError: a negative budget, or as :func:`budget_weights`.
    """
    if budget < 0:
        raise UserError(f"allocate_budget: budget: expected 0 or more, got {budget}.")
    weights = budget_weights(cluster_scores, temperature=temperature)
    quota = weights * budget
    floors = quota.floor()
    # By fraction, then by weight, then by position: stable sorts, the last key first.
    by_weight = torch.argsort(weights, descending=True, stable=True)
    fractions = (quota - floors)[by_weight]
    order = by_weight[torch.argsort(fractions, descending=True, stable=True)]
    result = floors.long()
    result[order[: budget - int(result.sum())]] += 1
    return result


@torch.no_grad()
def select_ood(
    similarity: Tensor,
    budgets: Tensor,
    *,
    assignment: Literal["greedy", "fair"] = "greedy",
) -> Tensor:
    """Choose for each cluster the OOD images nearest to its centre, no image twice.

    ``greedy`` is the official choice: clusters in the order given, each takes its nearest that are
    left. ``fair`` is the stable matching: no image and cluster prefer each other to what they have;
    the order of the clusters has no influence.

    Args:
        similarity: Float[M C], cosine of every OOD image to every centre: all that a large pool
            has to keep.
        budgets: Int[C], images for each cluster; the sum K must not exceed M.

    Returns:
        Int[K], unique positions in the pool: cluster after cluster, nearest first; split it by
        ``budgets``.

    Raises:
        UserError: K > M, shapes that do not fit, values that are not finite, an unknown name.
    """
    if assignment not in ASSIGNMENTS:
        raise unknown("assignment", assignment, ASSIGNMENTS)
    budgets = torch.as_tensor(budgets).long()
    if budgets.shape != similarity.shape[1:] or bool((budgets < 0).any()):
        raise UserError(
            f"select_ood: expected {similarity.shape[1]} budgets of 0 or more, "
            f"got {budgets.tolist()}."
        )
    if int(budgets.sum()) > len(similarity):
        raise UserError(
            f"select_ood: the budgets ask for {int(budgets.sum())} images, the OOD pool has "
            f"{len(similarity)}. Lower the budget to the size of the pool."
        )
    if not bool(torch.isfinite(similarity).all()):
        raise UserError("select_ood: features or centres are not finite: training has diverged.")
    choose = _greedy if assignment == "greedy" else _stable_matching
    return choose(similarity.cpu(), budgets.tolist()).to(similarity.device)


def _greedy(similarity: Tensor, budgets: list[int]) -> Tensor:
    """Cluster after cluster: its nearest images that are not yet taken."""
    free = torch.ones(len(similarity), dtype=torch.bool)
    chosen = []
    for c, budget in enumerate(budgets):
        candidates = torch.nonzero(free).squeeze(1)
        taken = _nearest(similarity[:, c], candidates, budget)
        free[taken] = False
        chosen.append(taken)
    return torch.cat(chosen)


def _stable_matching(similarity: Tensor, budgets: list[int]) -> Tensor:
    """Deferred acceptance (Gale & Shapley 1962): images propose, clusters keep their nearest.

    Every image proposes to each cluster at most once, all free images at a time.
    """
    preference = similarity.argsort(dim=1, descending=True, stable=True)  # (M, C)
    proposals = torch.zeros(len(similarity), dtype=torch.long)  # how many each image has made
    held: list[Tensor] = [torch.empty(0, dtype=torch.long) for _ in budgets]
    free = torch.arange(len(similarity))
    while len(free):
        target = preference[free, proposals[free]]
        rejected = []
        for c, budget in enumerate(budgets):
            candidates = torch.cat([held[c], free[target == c]]).sort().values
            held[c] = _nearest(similarity[:, c], candidates, budget)
            kept = torch.isin(candidates, held[c])
            rejected.append(candidates[~kept])
        free = torch.cat(rejected)
        proposals[free] += 1
        free = free[proposals[free] < len(budgets)]
    return torch.cat(held)


def _nearest(similarity: Tensor, candidates: Tensor, count: int) -> Tensor:
    """The ``count`` most similar candidates, nearest first; ties by position."""
    order = similarity[candidates].argsort(descending=True, stable=True)
    return candidates[order[:count]]
