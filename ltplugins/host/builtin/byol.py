# SPDX-License-Identifier: MIT
"""BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733).

As in solo-learn, the loss is the sum over ordered pairs of views, not their mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor

from ltplugins.config.read import read
from ltplugins.core.distributed import over_ranks
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import Section
from ltplugins.host.builtin.heads import MomentumProjected, mlp
from ltplugins.losses.terms.bases import regression_loss


@dataclass
class BYOLKwargs(Section):
    proj_hidden_dim: Annotated[int, AtLeast(1)]
    proj_output_dim: Annotated[int, AtLeast(1)]
    pred_hidden_dim: Annotated[int, AtLeast(1)]


class BYOL(MomentumProjected):
    """The online network predicts, for each view, what its momentum twin says of the others."""

    KWARGS: type | None = BYOLKwargs

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        kwargs = read(BYOLKwargs, self.cfg, "method_kwargs")
        width = kwargs.proj_output_dim
        self.add_projectors(self.features_dim, kwargs.proj_hidden_dim, width, norm=True)
        self.predictor = mlp(width, kwargs.pred_hidden_dim, width, norm=True)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Regression onto the twin plus the class loss, which only reaches the classifier."""
        out = super().training_step(batch, batch_idx)
        loss = torch.stack(
            [
                regression_loss(p, z)
                for i, z in enumerate(out["momentum_z"])
                for j, p in enumerate(out["p"])
                if i != j
            ]
        ).sum()
        z_std = embedding_std(out["z"][: self.num_large_crops])
        self.log_train({"train_neg_cos_sim": loss, "train_z_std": z_std}, len(batch[0]))
        return over_ranks(loss, len(batch[0])) + out["loss"]


@torch.no_grad()
def embedding_std(z: Sequence[Tensor]) -> Tensor:
    """Mean over views and dimensions of the unit embeddings' std: near 0 means collapse."""
    return F.normalize(torch.stack(list(z)), dim=-1).std(dim=1).mean()
