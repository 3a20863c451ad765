# SPDX-License-Identifier: MIT
"""Focal-SimCLR: SimCLR with the focal weight on its NT-Xent, a baseline of the GH paper.

Papers: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017,
https://arxiv.org/abs/1708.02002; Zhou et al., "Combating Representation Learning Disparity with
Geometric Harmonization", NeurIPS 2023, https://arxiv.org/abs/2310.17622
Official code: https://github.com/MediaBrain-SJTU/Geometric-Harmonization at 9f7057c

Known differences from the official code, beside those in ``losses/focal.py``:
- The projector is SimCLR's of the host (two linear layers, no BatchNorm), so that the method and
  its baseline ``simclr`` differ in the loss alone; ``proj_head: official`` is the official one.

Legend: N batch, D embedding dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ltplugins.core.distributed import gather_no_grad, gather_with_offset, rank_share
from ltplugins.core.ranges import Above, AtLeast
from ltplugins.core.schema import Section
from ltplugins.host.head import Head, apply_head
from ltplugins.losses.focal import focal_nt_xent
from ltplugins.methods.method import Method


@dataclass(frozen=True)
class FocalConfig(Section):
    """The block ``method_kwargs``; temperature and gamma default to the official settings."""

    proj_hidden_dim: Annotated[int, AtLeast(1)] = 512
    proj_output_dim: Annotated[int, AtLeast(1)] = 128
    temperature: Annotated[float, Above(0)] = 0.2
    gamma: Annotated[float, AtLeast(0)] = 2.0  # 0: SimCLR
    # official: the projector of GH's code; see host/head.py.
    proj_head: Head = "solo"
    detach_weight: bool = False  # true: the weight is a constant to the gradient; ours


class FocalMixin(Method):
    """Each view attracts the other view of its image; anchors that are easy already count less.

    ``train_nce_loss`` is what trains backbone and projector; ``train_class_loss`` only reaches the
    detached online classifier. Also logged: train_focal_weight, the mean weight of the anchors.
    """

    method_name = "focal"
    method_config = FocalConfig

    def setup_method(self, options: FocalConfig) -> None:
        """Build the projector; its keys are those of the host's SimCLR."""
        self.focal = options
        self.projector = nn.Sequential(
            nn.Linear(self.features_dim, options.proj_hidden_dim),
            nn.ReLU(),
            nn.Linear(options.proj_hidden_dim, options.proj_output_dim),
        )
        apply_head(self, self.cfg, "focal")

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The host's groups and the projector."""
        projector = {"name": "projector", "params": self.projector.parameters()}
        return [*super().learnable_params, projector]

    def forward(self, x: Tensor) -> dict[str, Any]:
        """The host's output with ``z`` (N, D)."""
        out = super().forward(x)
        return {**out, "z": self.projector(out["feats"])}

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Focal NT-Xent of the global batch, and the class loss of the online classifier.

        Args:
            batch: ``[indexes (N,), two views (N, 3, H, W), targets (N,)]``.
        """
        out = super().training_step(batch, batch_idx)
        z, ids = torch.cat(out["z"]), batch[0].repeat(2)
        all_z, offset = gather_with_offset(z)
        all_ids = gather_no_grad(ids)
        options = self.focal
        focal = focal_nt_xent(
            z,
            ids,
            temperature=options.temperature,
            gamma=options.gamma,
            detach_weight=options.detach_weight,
            all_z=all_z,
            all_ids=all_ids,
            offset=offset,
        )
        # The mean over ranks is then that over anchors, in a last batch of uneven ranks too.
        share = rank_share(len(z), len(all_z))
        nce_loss = focal.loss * share
        metrics = {
            "train_nce_loss": nce_loss.detach(),
            "train_focal_weight": focal.weight.detach().mean() * share,
        }
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=len(batch[0]))
        return nce_loss + out["loss"]
