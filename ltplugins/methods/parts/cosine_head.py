# SPDX-License-Identifier: MIT
"""The heads of GML: its cosine classifier and its MLP. Paper and code: see ``gml.py``.

Legend: N batch, D feature width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltplugins.core.precision import at_least_float32, full_precision


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


def project_rows(head: nn.Sequential, feats: Tensor, rows: Tensor | None) -> Tensor:
    """``head(feats)`` as if the batch were some of its rows alone: Float[N E].

    Args:
        head: of :func:`projector`.
        feats: Float[N D].
        rows: Bool[N], the rows that count in the BatchNorm's statistics; None for all. What comes
            out of the others means nothing.
    """
    if rows is None:
        return head(feats)
    for layer in head:
        if isinstance(layer, _BatchNorm) and layer.training:
            feats = _batch_norm(layer, feats, rows)
        else:
            feats = layer(feats)
    return feats


def _batch_norm(layer: _BatchNorm, feats: Tensor, rows: Tensor) -> Tensor:
    """A BatchNorm in training mode over some of the rows, whose number only the device knows."""
    x = at_least_float32(feats)
    counted = rows[:, None]
    number = rows.sum().clamp(min=1)
    mean = x.where(counted, 0.0).sum(dim=0) / number
    centred = x - mean
    variance = centred.where(counted, 0.0).square().sum(dim=0) / number
    if layer.running_mean is not None and layer.running_var is not None:
        assert (
            layer.momentum is not None
        )  # a plain mean of all batches is not what torch's default is
        with torch.no_grad():
            unbiased = variance * number / (number - 1).clamp(min=1)
            layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), layer.momentum)
            layer.running_var.lerp_(unbiased.to(layer.running_var.dtype), layer.momentum)
            layer.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    out = centred * (variance + layer.eps).rsqrt()
    if layer.affine:
        out = out * layer.weight + layer.bias
    return out.to(feats.dtype)
