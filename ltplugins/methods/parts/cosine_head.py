# SPDX-License-Identifier: MIT
"""The heads of GML: its cosine classifier and its MLP. Paper and code: see ``gml.py``.

Legend: N batch, D feature width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltplugins.core.precision import full_precision


class CosineClassifier(nn.Module):
    """Cosines of features and class weights: Float[N D] -> Float[N C], float32 at least."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(num_classes, dim), dim=1))

    def forward(self, feats: Tensor) -> Tensor:
        return _cosines(feats, self.weight)


@full_precision
def _cosines(feats: Tensor, weight: Tensor) -> Tensor:
    return F.normalize(feats, dim=1) @ F.normalize(weight, dim=1).T


def projector(width: int, hidden: int, out: int) -> nn.Sequential:
    """Build the MLP of GML's official code: linear, BatchNorm, ReLU, linear."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out),
    )
