# SPDX-License-Identifier: MIT
"""The straightforward forms that the package's losses are measured against, in own words.

Each is written as its specification reads, in the tensors' own precision, without a thought of
speed. The benchmark asserts that the package's form gives the same numbers before it is timed.

Legend: B global batch, K directions, D dim, N training images, M bank images, T test images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def sinkhorn(logits: Tensor, prior: Tensor, epsilon: float, num_iters: int) -> Tensor:
    """GH's step 4: q Float[B K] of logits Float[B K], scaled in turn to the prior and to 1 / B."""
    batch = len(logits)
    kernel = torch.exp(logits.T / epsilon)  # (K, B)
    columns = torch.full((batch,), 1 / batch)
    for _ in range(num_iters):
        rows = prior / (kernel @ columns)
        columns = (1 / batch) / (kernel.T @ rows)
    return batch * (rows[:, None] * kernel * columns[None, :]).T


def gh_term(logits_1: Tensor, logits_2: Tensor, prior: Tensor, num_iters: int = 300) -> Tensor:
    """GH's step 5 on :func:`sinkhorn`, with the official epsilon 0.05 and gamma 0.1."""
    q_1 = sinkhorn(logits_1, prior, 0.05, num_iters)
    q_2 = sinkhorn(logits_2, prior, 0.05, num_iters)
    log_p_1, log_p_2 = (torch.log_softmax(t / 0.1, dim=1) for t in (logits_1, logits_2))
    return -(q_1 * log_p_2).sum(dim=1).mean() - (q_2 * log_p_1).sum(dim=1).mean()


@torch.no_grad()
def update_memory(
    memory: Tensor, filled: Tensor, indexes: Tensor, values: Tensor, momentum: float
) -> None:
    """GH's step 7, an image at a time; the first observation is taken as it is."""
    for row, value in zip(indexes.tolist(), values, strict=True):
        if filled[row]:
            memory[row] = momentum * memory[row] + (1 - momentum) * value
        else:
            memory[row], filled[row] = value, True


@torch.no_grad()
def tail_scores(z_1: Tensor, z_2: Tensor, temperature: float, k: int) -> Tensor:
    """COLT's step 2, an image at a time: sort its softmax over the negatives, add the k largest."""
    batch = len(z_1)
    z = F.normalize(torch.cat([z_1, z_2]), dim=1)
    similarity = torch.exp(z @ z.T / temperature)
    scores = []
    for i in range(batch):
        is_negative = torch.ones(2 * batch, dtype=torch.bool)
        is_negative[i] = is_negative[i + batch] = False
        p = torch.zeros(2 * batch - 2)
        for anchor, positive in ((i, i + batch), (i + batch, i)):
            negatives = similarity[anchor, is_negative]
            p += negatives / (similarity[anchor, positive] + negatives.sum()) / 2
        scores.append(p.sort(descending=True).values[:k].sum())
    return torch.stack(scores)


def nt_xent(z_1: Tensor, z_2: Tensor, temperature: float) -> Tensor:
    """NT-Xent with the negatives cut out by masked_select; the mask is made anew, as is usual."""
    batch = len(z_1)
    z = F.normalize(torch.cat([z_1, z_2]), dim=1)
    similarity = torch.exp(z @ z.T / temperature)
    is_other = torch.ones(batch, 2 * batch, dtype=torch.bool)
    for i in range(batch):
        is_other[i, i] = is_other[i, i + batch] = False
    is_other = is_other.repeat(2, 1)
    negatives = similarity.masked_select(is_other).view(2 * batch, -1).sum(dim=1)
    positive = torch.exp((z[:batch] * z[batch:]).sum(dim=1) / temperature).repeat(2)
    return -torch.log(positive / (positive + negatives)).mean()


@torch.no_grad()
def knn(
    bank: Tensor, targets: Tensor, queries: Tensor, classes: int, k: int, temperature: float
) -> Tensor:
    """Int[T]: the class of the heaviest vote, from one similarity matrix Float[T M]."""
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    nearest, places = similarity.topk(k, dim=1)
    votes = torch.zeros(len(queries), classes)
    votes.scatter_add_(1, targets[places], (nearest / temperature).exp())
    return votes.argmax(dim=1)
