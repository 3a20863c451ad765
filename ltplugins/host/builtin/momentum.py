# SPDX-License-Identifier: MIT
"""``BaseMomentumMethod``: a momentum twin of the backbone, updated after each optimizer step.

The EMA factor and the number of steps taken survive a resume (in solo-learn they do not).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ltplugins.config.read import read
from ltplugins.config.sections import MomentumConfig
from ltplugins.core.distributed import over_ranks
from ltplugins.core.transfer import scalar
from ltplugins.host.builtin.backbones import build_backbone
from ltplugins.host.builtin.base import BaseMethod, class_metrics, per_view
from ltplugins.host.stem import configure_stem
from ltplugins.host.twins import load_tau, save_momentum, update_twins


@torch.no_grad()
def initialize_momentum_params(online: nn.Module, twin: nn.Module) -> None:
    """Copy the online network's parameters into its twin and freeze the twin."""
    for source, target in zip(online.parameters(), twin.parameters(), strict=True):
        target.copy_(source)
        target.requires_grad = False


class MomentumUpdater:
    """Exponential moving average whose factor rises from ``base_tau`` to ``final_tau``."""

    def __init__(self, base_tau: float = 0.996, final_tau: float = 1.0) -> None:
        self.base_tau = base_tau
        self.cur_tau = base_tau
        self.final_tau = final_tau

    @torch.no_grad()
    def update(self, online: nn.Module, twin: nn.Module) -> None:
        """``twin = tau * twin + (1 - tau) * online``, parameters only, as in solo-learn."""
        for source, target in zip(online.parameters(), twin.parameters(), strict=True):
            target.lerp_(source, 1 - self.cur_tau)

    def update_tau(self, cur_step: int, max_steps: float) -> None:
        """Cosine from ``base_tau`` at step 0 to ``final_tau`` at ``max_steps``."""
        remaining = (1 + math.cos(math.pi * cur_step / max_steps)) / 2
        self.cur_tau = self.final_tau - (self.final_tau - self.base_tau) * remaining


class BaseMomentumMethod(BaseMethod):
    """Adds ``momentum_backbone`` and, if asked for, a classifier on its features."""

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        self.momentum_backbone, _ = build_backbone(self.backbone_name, self.backbone_args)
        configure_stem(self.momentum_backbone, cfg)
        initialize_momentum_params(self.backbone, self.momentum_backbone)
        self.momentum_classifier: nn.Module | None = None
        if self.cfg.momentum.classifier:
            self.momentum_classifier = nn.Linear(self.features_dim, self.num_classes)
        self.momentum_updater = MomentumUpdater(
            self.cfg.momentum.base_tau, self.cfg.momentum.final_tau
        )
        self.last_step = 0

    @classmethod
    def add_and_assert_specific_cfg(cls, cfg: DictConfig) -> DictConfig:
        cfg = super().add_and_assert_specific_cfg(cfg)
        read(MomentumConfig, cfg, "momentum")
        return cfg

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        groups = super().learnable_params
        if self.momentum_classifier is not None:
            classifier = {"name": "momentum_classifier", "lr": self.classifier_lr}
            params = self.momentum_classifier.parameters()
            groups.append({**classifier, "params": params, "weight_decay": 0})
        return groups

    @property
    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(online, twin) modules that the updater keeps together."""
        return [(self.backbone, self.momentum_backbone)]

    @torch.no_grad()
    def momentum_forward(self, x: Tensor) -> dict[str, Any]:
        """Return the twin's ``feats`` (N, D), without gradient."""
        return {"feats": self.momentum_backbone(self._image_layout(x))}

    def _shared_step_momentum(self, x: Tensor, targets: Tensor) -> dict[str, Any]:
        out = self.momentum_forward(x)
        if self.momentum_classifier is not None:
            out["logits"] = self.momentum_classifier(out["feats"])
            out |= class_metrics(out["logits"], targets)
        return out

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Any:
        """As the base's, with ``momentum_<key>`` lists of the twin's view of the large crops."""
        outs = super().training_step(batch, batch_idx)
        _, views, targets = batch
        views = [views] if isinstance(views, Tensor) else views
        large = views[: self.num_large_crops]
        twin = per_view([self._shared_step_momentum(x, targets) for x in large])
        if self.momentum_classifier is not None:
            for key in ("loss", "acc1", "acc5"):
                twin[key] = sum(twin[key]) / self.num_large_crops
            metrics = {f"train_momentum_{k}": twin[k] for k in ("acc1", "acc5")}
            metrics["train_momentum_class_loss"] = twin["loss"]
            self.log_train(metrics, len(targets))
            outs["loss"] = outs["loss"] + over_ranks(twin["loss"], (targets != -1).sum())
        return outs | {f"momentum_{key}": value for key, value in twin.items()}

    def validation_step(
        self, batch: Sequence[Any], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """As the base's, with ``momentum_val_*`` if there is a momentum classifier."""
        metrics = super().validation_step(batch, batch_idx, dataloader_idx)
        if self.momentum_classifier is not None:
            out = self._shared_step_momentum(*batch)
            # In place: the base has kept this very dict for the end of the epoch.
            metrics |= {f"momentum_val_{k}": out[k].detach() for k in ("loss", "acc1", "acc5")}
        return metrics

    def on_train_start(self) -> None:
        # Not 0: after a resume in the middle of an accumulation that would add an update.
        self.last_step = self.trainer.global_step

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the twins and the factor if the optimizer took a step."""
        tau = self.momentum_updater.cur_tau
        if update_twins(self):
            # The same on every rank, so there is nothing to average.
            self.log("tau", scalar(tau, self.device), sync_dist=False, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        save_momentum(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        load_tau(self, checkpoint)
