# SPDX-License-Identifier: MIT
"""The health of features without labels: have they collapsed, and how much of the space is used.

* RankMe: Garrido et al., ICML 2023, https://arxiv.org/abs/2210.02885; without its epsilon of 1e-7.
* Alignment and uniformity: Wang and Isola, ICML 2020, https://arxiv.org/abs/2005.10242.
* Angles to the simplex ETF: Papyan et al., PNAS 2020, https://arxiv.org/abs/2008.08186. A
  diagnostic and no target: the optimum of cross-entropy is an ETF for classes of equal size alone;
  under imbalance rare classes move together (Fang et al., https://arxiv.org/abs/2101.12699).

None of torchmetrics, scikit-learn and scipy has them.

Legend: N images, D dim, C classes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.metrics.collapse import Health

DEAD = 1e-3  # a dimension's std, relative to the largest, up to which it is dead


def measure(feats: Tensor, other: Tensor | None = None, targets: Tensor | None = None) -> Health:
    """All measures of features.

    Args:
        feats: Float[N D], N > 1, as the backbone gives them.
        other: Float[M D], of a second view of M images whose first one is ``feats[:M]``.
        targets: Int[N], -1 = no label.
    """
    means = None if targets is None else class_means(feats, targets)
    return Health(
        rankme=rankme(feats),
        uniformity=uniformity(feats),
        dead=dead_share(feats),
        alignment=None if other is None else alignment(feats[: len(other)], other),
        etf=None if means is None else etf_deviation(means),
        images=len(feats),
        dim=feats.shape[1],
    )


def rankme(feats: Tensor) -> float:
    """exp of the entropy of the singular values, which are divided by their sum.

    Not centred, as in the paper. There is no smaller number than 1; features that are all 0 get it.

    >>> round(rankme(torch.eye(4)), 6), round(rankme(torch.ones(4, 3)), 6)
    (4.0, 1.0)

    Args:
        feats: Float[N D].
    """
    values = torch.linalg.svdvals(feats.double())
    shares = values / values.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return float(torch.special.entr(shares).sum().exp())


def alignment(feats: Tensor, other: Tensor) -> float:
    """Mean of |x - y|^2 over pairs of views, on the unit sphere (alpha = 2).

    >>> alignment(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    2.0

    Args:
        feats, other: Float[N D], row by row of one image.
    """
    x, y = (F.normalize(v.double(), dim=1) for v in (feats, other))
    return float((x - y).square().sum(dim=1).mean())


def uniformity(feats: Tensor, t: float = 2.0) -> float:
    """Log of the mean of exp(-t |x - y|^2) over pairs of different images, on the unit sphere.

    >>> round(uniformity(torch.eye(3)), 6)  # all distances are the root of 2
    -4.0

    Args:
        feats: Float[N D], N > 1; the pairs take some 50 N^2 bytes.
    """
    x = F.normalize(feats.double(), dim=1)
    sizes = x.square().sum(dim=1)  # 1, but 0 of an image whose features are all 0
    row, column = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    pairs = (sizes[row] + sizes[column] - 2 * (x @ x.T)[row, column]).clamp(min=0)
    return float(torch.logsumexp(-t * pairs, dim=0)) - math.log(len(pairs))


def dead_share(feats: Tensor) -> float:
    """Share of dimensions whose std over images is at most a thousandth of the largest.

    >>> dead_share(torch.tensor([[1.0, 5.0, 0.0], [2.0, 5.0, 1.0]]))  # the second
    0.3333333333333333

    Args:
        feats: Float[N D]; where no dimension changes, all are dead.
    """
    std = feats.double().std(dim=0, correction=0)
    return float((std <= DEAD * std.max()).double().mean())


def class_means(feats: Tensor, targets: Tensor) -> Tensor | None:
    """Float[C D], the mean of each class that has images; None for fewer than 3 such classes."""
    labels = targets[targets >= 0].unique()
    if len(labels) < 3:
        return None
    return torch.stack([feats[targets == label].double().mean(dim=0) for label in labels])


def etf_deviation(vectors: Tensor) -> float:
    """Mean |angle - the simplex ETF's| over pairs of centred vectors, in degrees.

    In an ETF all pairs have the cosine -1 / (C - 1). No more than D + 1 vectors can.

    >>> round(etf_deviation(torch.eye(3)), 6)  # centred they are an ETF: 120 degrees
    0.0

    Args:
        vectors: Float[C D], C > 2: class means, or a classifier's weights.
    """
    x = vectors.double()
    x = F.normalize(x - x.mean(dim=0), dim=1)
    row, column = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    angles = (x @ x.T)[row, column].clamp(-1, 1).arccos()
    return float(torch.rad2deg((angles - math.acos(-1 / (len(x) - 1))).abs().mean()))
