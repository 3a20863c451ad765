# SPDX-License-Identifier: MIT
"""SimSiam (Chen and He 2021, https://arxiv.org/abs/2011.10566)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import DictConfig
from torch import Tensor, nn

from ltplugins.config.read import read, require_pair
from ltplugins.core.distributed import over_ranks
from ltplugins.core.ranges import Above, AtLeast
from ltplugins.core.schema import Section
from ltplugins.host.builtin.byol import embedding_std
from ltplugins.host.builtin.heads import Projected, mlp
from ltplugins.losses.terms.bases import negative_cosine


@dataclass
class SimSiamKwargs(Section):
    """``temperature`` is not used; solo-learn's own simsiam.yaml carries it."""

    proj_hidden_dim: Annotated[int, AtLeast(1)]
    proj_output_dim: Annotated[int, AtLeast(1)]
    pred_hidden_dim: Annotated[int, AtLeast(1)]
    temperature: Annotated[float, Above(0)] | None = None


class SimSiam(Projected):
    """Two views predict each other; the target side is held fixed. The predictor's rate too."""

    KWARGS: type | None = SimSiamKwargs

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        require_pair(self.cfg)
        kwargs = read(SimSiamKwargs, self.cfg, "method_kwargs")
        hidden, width = kwargs.proj_hidden_dim, kwargs.proj_output_dim
        projector = mlp(self.features_dim, hidden, hidden, width, norm=True, bias=False)
        projector[-1].bias.requires_grad = False  # the BatchNorm that follows would remove it
        self.projector = projector.append(nn.BatchNorm1d(width, affine=False))
        self.predictor = mlp(width, kwargs.pred_hidden_dim, width, norm=True, bias=False)

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        groups = super().learnable_params
        return [g | {"static_lr": True} if g["name"] == "predictor" else g for g in groups]

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Negative cosine plus the class loss, which only reaches the classifier."""
        out = super().training_step(batch, batch_idx)
        (z_1, z_2), (p_1, p_2) = out["z"][:2], out["p"][:2]
        loss = (negative_cosine(p_1, z_2) + negative_cosine(p_2, z_1)) / 2
        z_std = embedding_std((z_1, z_2))
        self.log_train({"train_neg_cos_sim": loss, "train_z_std": z_std}, len(batch[0]))
        return over_ranks(loss, len(batch[0])) + out["loss"]
