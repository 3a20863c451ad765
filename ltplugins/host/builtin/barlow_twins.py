# SPDX-License-Identifier: MIT
"""Barlow Twins (Zbontar et al. 2021, https://arxiv.org/abs/2103.03230).

Difference from solo-learn: across ranks the projections are gathered, with their gradient, before
they are normalised and correlated. There each rank normalises its own, and the all-reduce of the
correlation has no gradient, so that two processes train with half of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import DictConfig
from torch import Tensor

from ltplugins.config.read import read, require_pair
from ltplugins.core.distributed import gather
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import Section
from ltplugins.host.builtin.heads import Projected, mlp
from ltplugins.losses.terms.bases import barlow_twins


@dataclass
class BarlowTwinsKwargs(Section):
    proj_hidden_dim: Annotated[int, AtLeast(1)]
    proj_output_dim: Annotated[int, AtLeast(1)]
    lamb: Annotated[float, AtLeast(0)] = 0.0051
    scale_loss: Annotated[float, AtLeast(0)] = 0.024


class BarlowTwins(Projected):
    """Same dimension, two views: correlated. Different dimensions: not."""

    KWARGS: type | None = BarlowTwinsKwargs

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        require_pair(self.cfg)
        kwargs = read(BarlowTwinsKwargs, self.cfg, "method_kwargs")
        self.lamb, self.scale_loss = kwargs.lamb, kwargs.scale_loss
        hidden, width = kwargs.proj_hidden_dim, kwargs.proj_output_dim
        self.projector = mlp(self.features_dim, hidden, hidden, width, norm=True)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Barlow Twins' loss plus the class loss, which only reaches the classifier."""
        out = super().training_step(batch, batch_idx)
        z_1, z_2 = (gather(z) for z in out["z"][:2])
        loss = barlow_twins(z_1, z_2, self.lamb, self.scale_loss)
        self.log_train({"train_barlow_loss": loss}, len(batch[0]))
        return loss + out["loss"]
