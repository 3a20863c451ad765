# SPDX-License-Identifier: MIT
"""Projection heads and the two bases that carry them.

Positions inside the ``nn.Sequential`` are part of the contract: they are the ``state_dict`` keys.
"""

from itertools import pairwise
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ltplugins.host.builtin.base import BaseMethod
from ltplugins.host.builtin.momentum import BaseMomentumMethod, initialize_momentum_params


def mlp(*widths: int, norm: bool = False, bias: bool = True) -> nn.Sequential:
    """Linear layers with ReLU between them, BatchNorm before each ReLU if ``norm``.

    Args:
        widths: input, hidden..., output.
        bias: whether the hidden layers have one; the last layer always has.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after, bias=bias))
        layers += [nn.BatchNorm1d(after)] if norm else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class Projected(BaseMethod):
    """A method with ``z = projector(feats)`` and, if it has a predictor, ``p = predictor(z)``."""

    projector: nn.Module

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        self.predictor: nn.Module | None = None

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        groups = super().learnable_params
        groups.append({"name": "projector", "params": self.projector.parameters()})
        if self.predictor is not None:
            groups.append({"name": "predictor", "params": self.predictor.parameters()})
        return groups

    def forward(self, x: Tensor) -> dict[str, Any]:
        return self._project(super().forward(x))

    def multicrop_forward(self, x: Tensor) -> dict[str, Any]:
        return self._project(super().multicrop_forward(x))

    def _project(self, out: dict[str, Any]) -> dict[str, Any]:
        out["z"] = self.projector(out["feats"])
        if self.predictor is not None:
            out["p"] = self.predictor(out["z"])
        return out


class MomentumProjected(Projected, BaseMomentumMethod):
    """``Projected`` with a momentum twin of backbone and projector."""

    momentum_projector: nn.Module

    def add_projectors(self, *widths: int, norm: bool = False) -> None:
        """Build the projector and its twin, equal at the start."""
        self.projector = mlp(*widths, norm=norm)
        self.momentum_projector = mlp(*widths, norm=norm)
        initialize_momentum_params(self.projector, self.momentum_projector)

    @property
    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [*super().momentum_pairs, (self.projector, self.momentum_projector)]

    @torch.no_grad()
    def momentum_forward(self, x: Tensor) -> dict[str, Any]:
        out = super().momentum_forward(x)
        out["z"] = self.momentum_projector(out["feats"])
        return out
