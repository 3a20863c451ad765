# SPDX-License-Identifier: MIT
"""SupCon (Khosla et al. 2020, https://arxiv.org/abs/2004.11362).

As in solo-learn, this is the paper's L_in (eq. 3): the sum over positives is inside the logarithm.
Difference from solo-learn: an unlabelled image (target -1) is its own class, with its other crops
as positives; there, all unlabelled images are one class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ltplugins.config.read import read
from ltplugins.core.ranges import Above, AtLeast
from ltplugins.core.schema import Section
from ltplugins.host.builtin.heads import Projected, mlp
from ltplugins.host.builtin.simclr import global_nt_xent
from ltplugins.host.head import Head, apply_head


@dataclass
class SupConKwargs(Section):
    proj_hidden_dim: Annotated[int, AtLeast(1)]
    proj_output_dim: Annotated[int, AtLeast(1)]
    temperature: Annotated[float, Above(0)]
    # official: the long-tail papers' projector, as wide as the backbone; see host/head.py.
    proj_head: Head = "solo"


class SupCon(Projected):
    """SimCLR with all crops of a class as positives."""

    KWARGS: type | None = SupConKwargs

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        kwargs = read(SupConKwargs, self.cfg, "method_kwargs")
        self.temperature = kwargs.temperature
        self.projector = mlp(self.features_dim, kwargs.proj_hidden_dim, kwargs.proj_output_dim)
        apply_head(self, self.cfg, "supcon")

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Supervised contrastive loss plus the class loss, which only reaches the classifier."""
        out = super().training_step(batch, batch_idx)
        indexes, _, targets = batch
        ids = torch.where(targets < 0, -1 - indexes, targets)
        nce_loss = global_nt_xent(out["z"], ids, self.temperature)
        self.log_train({"train_nce_loss": nce_loss}, len(targets))
        return nce_loss + out["loss"]
