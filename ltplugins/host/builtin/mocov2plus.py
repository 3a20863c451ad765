# SPDX-License-Identifier: MIT
"""MoCo v2+, symmetric MoCo (Chen and He 2021, https://arxiv.org/abs/2011.10566, appendix).

Difference from solo-learn: the queue is a ring that takes batches of any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from omegaconf import DictConfig
from torch import Tensor

from ltplugins.config.read import read, require_pair
from ltplugins.core.distributed import gather_no_grad, over_ranks
from ltplugins.core.ranges import Above, AtLeast
from ltplugins.host.builtin.heads import MomentumProjected
from ltplugins.losses.terms.bases import queue_nce


@dataclass
class MoCoV2PlusKwargs:
    proj_hidden_dim: Annotated[int, AtLeast(1)]
    proj_output_dim: Annotated[int, AtLeast(1)]
    temperature: Annotated[float, Above(0)]
    queue_size: Annotated[int, AtLeast(1)] = 65536


class MoCoV2Plus(MomentumProjected):
    """A query finds the momentum key of its other view among a queue of earlier keys."""

    KWARGS: type | None = MoCoV2PlusKwargs

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        require_pair(self.cfg)
        kwargs = read(MoCoV2PlusKwargs, self.cfg, "method_kwargs")
        self.temperature, self.queue_size = kwargs.temperature, kwargs.queue_size
        self.add_projectors(self.features_dim, kwargs.proj_hidden_dim, kwargs.proj_output_dim)
        # (2, D, K): one queue per view, random unit keys until real ones have replaced them.
        queue = F.normalize(torch.randn(2, kwargs.proj_output_dim, self.queue_size), dim=1)
        self.register_buffer("queue", queue)
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.queue: Tensor
        self.queue_ptr: Tensor

    def _project(self, out: dict[str, Any]) -> dict[str, Any]:
        out = super()._project(out)
        out["z"] = F.normalize(out["z"], dim=-1)
        return out

    @torch.no_grad()
    def momentum_forward(self, x: Tensor) -> dict[str, Any]:
        out = super().momentum_forward(x)
        out["z"] = F.normalize(out["z"], dim=-1)
        return out

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest keys; keys: (2, N, D) of all ranks, unit norm."""
        keys = keys[:, -self.queue_size :]
        count = keys.shape[1]
        slots = (self.queue_ptr + torch.arange(count, device=keys.device)) % self.queue_size
        self.queue[:, :, slots] = rearrange(keys, "V N D -> V D N").to(self.queue.dtype)
        self.queue_ptr.add_(count).remainder_(self.queue_size)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Symmetric InfoNCE plus the class loss, which only reaches the classifier."""
        out = super().training_step(batch, batch_idx)
        (q_1, q_2), (k_1, k_2) = out["z"][:2], out["momentum_z"]
        queue = self.queue.clone()  # the graph needs it as it was, and it is overwritten below
        nce_loss = (
            queue_nce(q_1, k_2, queue[1], self.temperature)
            + queue_nce(q_2, k_1, queue[0], self.temperature)
        ) / 2
        self.enqueue(torch.stack([gather_no_grad(k_1), gather_no_grad(k_2)]))
        self.log_train({"train_nce_loss": nce_loss}, len(batch[0]))
        return over_ranks(nce_loss, len(batch[0])) + out["loss"]
