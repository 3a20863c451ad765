# SPDX-License-Identifier: MIT
"""SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709).

Difference from solo-learn: the loss is worked in log space, finite at temperature 0.01.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ltplugins.config.read import read
from ltplugins.core.distributed import gather_no_grad, gather_with_offset, over_ranks
from ltplugins.core.ranges import Above, AtLeast
from ltplugins.core.schema import Section
from ltplugins.host.builtin.heads import Projected, mlp
from ltplugins.host.head import Head, apply_head
from ltplugins.losses.terms.bases import nt_xent


@dataclass
class SimCLRKwargs(Section):
    proj_hidden_dim: Annotated[int, AtLeast(1)]
    proj_output_dim: Annotated[int, AtLeast(1)]
    temperature: Annotated[float, Above(0)]
    # official: the long-tail papers' projector, as wide as the backbone; see host/head.py.
    proj_head: Head = "solo"


class SimCLR(Projected):
    """Each crop attracts the other crops of its image and repels the rest of the global batch."""

    KWARGS: type | None = SimCLRKwargs

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        kwargs = read(SimCLRKwargs, self.cfg, "method_kwargs")
        self.temperature = kwargs.temperature
        self.projector = mlp(self.features_dim, kwargs.proj_hidden_dim, kwargs.proj_output_dim)
        apply_head(self, self.cfg, "simclr")

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """NT-Xent over all crops plus the class loss, which only reaches the classifier."""
        out = super().training_step(batch, batch_idx)
        indexes = batch[0]
        nce_loss = global_nt_xent(out["z"], indexes, self.temperature)
        self.log_train({"train_nce_loss": nce_loss}, len(indexes))
        return nce_loss + out["loss"]


def global_nt_xent(z: Sequence[Tensor], ids: Tensor, temperature: float) -> Tensor:
    """NT-Xent of this rank's anchors against the crops of all ranks; DDP's average is the whole.

    Args:
        z: V tensors (N, D).
        ids: (N,) equal ids are positives.
    """
    anchors, anchor_ids = torch.cat(list(z)), ids.repeat(len(z))
    all_z, offset = gather_with_offset(anchors)
    all_ids = gather_no_grad(anchor_ids)
    loss = nt_xent(anchors, anchor_ids, temperature, all_z=all_z, all_ids=all_ids, offset=offset)
    return over_ranks(loss, len(ids))
