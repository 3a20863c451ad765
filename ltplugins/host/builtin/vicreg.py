# SPDX-License-Identifier: MIT
"""VICReg (Bardes et al. 2022, https://arxiv.org/abs/2105.04906).

As in solo-learn, the variance term is the sum over the two views; the paper's code halves it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import DictConfig
from torch import Tensor

from ltplugins.config.read import read, require_pair
from ltplugins.core.distributed import gather, over_ranks
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import Section
from ltplugins.host.builtin.heads import Projected, mlp
from ltplugins.losses.terms.bases import vicreg_covariance, vicreg_invariance, vicreg_variance


@dataclass
class VICRegKwargs(Section):
    proj_hidden_dim: Annotated[int, AtLeast(1)]
    proj_output_dim: Annotated[int, AtLeast(1)]
    sim_loss_weight: Annotated[float, AtLeast(0)] = 25.0
    var_loss_weight: Annotated[float, AtLeast(0)] = 25.0
    cov_loss_weight: Annotated[float, AtLeast(0)] = 1.0


class VICReg(Projected):
    """Two views agree, each dimension keeps its variance, and dimensions do not repeat."""

    KWARGS: type | None = VICRegKwargs

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        require_pair(self.cfg)
        kwargs = read(VICRegKwargs, self.cfg, "method_kwargs")
        self.sim_loss_weight = kwargs.sim_loss_weight
        self.var_loss_weight = kwargs.var_loss_weight
        self.cov_loss_weight = kwargs.cov_loss_weight
        hidden, width = kwargs.proj_hidden_dim, kwargs.proj_output_dim
        self.projector = mlp(self.features_dim, hidden, hidden, width, norm=True)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """VICReg's three terms plus the class loss, which only reaches the classifier."""
        out = super().training_step(batch, batch_idx)
        z_1, z_2 = out["z"][:2]
        invariance = over_ranks(vicreg_invariance(z_1, z_2), len(z_1))
        z_1, z_2 = gather(z_1), gather(z_2)
        loss = (
            self.sim_loss_weight * invariance
            + self.var_loss_weight * (vicreg_variance(z_1) + vicreg_variance(z_2))
            + self.cov_loss_weight * (vicreg_covariance(z_1) + vicreg_covariance(z_2))
        )
        self.log_train({"train_vicreg_loss": loss}, len(batch[0]))
        return loss + out["loss"]
