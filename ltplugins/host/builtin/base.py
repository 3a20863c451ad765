# SPDX-License-Identifier: MIT
"""``BaseMethod``: backbone, online classifier, optimizer, and the flow of one training step.

Contract: solo-learn 1.0.6. ``training_step`` runs ``base_training_step`` on each large crop and
``multicrop_forward`` on each small one, and returns a dict of per-view lists; ``loss``, ``acc1``
and ``acc5`` in it are means over the views. ``loss`` is the class loss alone, and it reaches
nothing but the online classifier, which sees detached features. A method adds its own loss.

Known differences, all on purpose: unknown config keys are refused; unlabelled rows (target -1)
count neither in accuracy nor, as a whole batch, as NaN; a ``static_lr`` group keeps its own rate.

Legend: N batch, V views, D feature width, C classes.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ltplugins.config.read import read, read_value
from ltplugins.config.sections import (
    BackboneConfig,
    KnnConfig,
    OptimizerConfig,
    PerformanceConfig,
    SchedulerConfig,
)
from ltplugins.core.distributed import over_ranks
from ltplugins.core.ranges import AtLeast
from ltplugins.host.builtin.backbones import build_backbone
from ltplugins.host.builtin.optim import (
    build_optimizer,
    build_schedule,
    require_optimizer,
    require_schedule,
)
from ltplugins.host.stem import configure_stem
from ltplugins.losses.terms.bases import accuracy, class_loss

Count = Annotated[int, AtLeast(1)]


class BaseMethod(pl.LightningModule):
    """What every method shares. Subclasses name their ``method_kwargs`` dataclass in KWARGS."""

    KWARGS: type | None = None

    def __init__(self, cfg: DictConfig) -> None:
        """Build backbone and classifier and read the config's common sections.

        Raises:
            UserError: an unknown backbone, an unknown key or a wrong type in the config.
        """
        super().__init__()
        cfg = self.add_and_assert_specific_cfg(cfg)
        self.cfg = cfg
        self._read_backbone(cfg)
        self._read_optimizer(cfg)
        self.max_epochs: int = read_value(cfg, "max_epochs", Count)
        self.num_classes: int = read_value(cfg, "data.num_classes", Count)
        self.classifier = nn.Linear(self.features_dim, self.num_classes)
        self.num_large_crops: int = read_value(cfg, "data.num_large_crops", Count)
        self.num_small_crops: int = read_value(
            cfg, "data.num_small_crops", Annotated[int, AtLeast(0)]
        )
        self.num_crops = self.num_large_crops + self.num_small_crops
        self.multicrop = self.num_small_crops != 0
        self.no_channel_last: bool = cfg.performance.disable_channel_last
        self.knn_eval: bool = cfg.knn_eval.enabled
        self.knn_k: int = cfg.knn_eval.k
        if self.knn_eval:
            from ltplugins.metrics.online_knn import OnlineKNN

            self.knn = OnlineKNN(k=self.knn_k, distance_fx=cfg.knn_eval.distance_func)
        self.validation_step_outputs: list[dict[str, Tensor]] = []

    @classmethod
    def add_and_assert_specific_cfg(cls, cfg: DictConfig) -> DictConfig:
        """Check ``cfg`` and fill in defaults, in place; return it.

        Raises:
            UserError: an unknown key (with the nearest valid one), a wrong type, a missing key.
        """
        read(BackboneConfig, cfg, "backbone")
        read(OptimizerConfig, cfg, "optimizer")
        read(SchedulerConfig, cfg, "scheduler")
        read(KnnConfig, cfg, "knn_eval")
        read(PerformanceConfig, cfg, "performance")
        if OmegaConf.select(cfg, "accumulate_grad_batches") is None:
            OmegaConf.update(cfg, "accumulate_grad_batches", 1, force_add=True)
        if cls.KWARGS is not None:
            read(cls.KWARGS, cfg, "method_kwargs")
        elif OmegaConf.select(cfg, "method_kwargs") is None:
            OmegaConf.update(cfg, "method_kwargs", {}, force_add=True)
        return cfg

    def _read_backbone(self, cfg: DictConfig) -> None:
        self.backbone_name: str = cfg.backbone.name
        kwargs: Any = OmegaConf.to_container(cfg.backbone.kwargs, resolve=True)  # lists included
        self.backbone_args: dict[str, Any] = kwargs
        self.backbone, self.features_dim = build_backbone(self.backbone_name, self.backbone_args)
        configure_stem(self.backbone, cfg)

    def _read_optimizer(self, cfg: DictConfig) -> None:
        self.accumulate_grad_batches: int = cfg.accumulate_grad_batches
        # Rates are given per batch; with accumulation they scale with it, as in solo-learn.
        scale = self.accumulate_grad_batches
        self.optimizer: str = require_optimizer(cfg.optimizer.name)
        self.batch_size: int = cfg.optimizer.batch_size
        self.lr: float = cfg.optimizer.lr * scale
        self.classifier_lr: float = cfg.optimizer.classifier_lr * scale
        self.weight_decay: float = cfg.optimizer.weight_decay
        self.exclude_bias_n_norm_wd: bool = cfg.optimizer.exclude_bias_n_norm_wd
        self.extra_optimizer_args: dict[str, Any] = dict(cfg.optimizer.kwargs)
        # On a weight of no network: what it does not take is refused before any work.
        build_optimizer(
            self.optimizer,
            [{"params": [nn.Parameter(torch.zeros(1, 1))]}],
            lr=self.lr,
            weight_decay=self.weight_decay,
            exclude_bias_n_norm_wd=self.exclude_bias_n_norm_wd,
            kwargs=self.extra_optimizer_args,
        )
        self.scheduler: str = require_schedule(cfg.scheduler.name.lower())
        self.scheduler_interval: str = cfg.scheduler.interval
        self.lr_decay_steps = cfg.scheduler.lr_decay_steps
        self.warmup_epochs: float = cfg.scheduler.warmup_epochs
        self.warmup_start_lr: float = cfg.scheduler.warmup_start_lr * scale
        self.min_lr: float = cfg.scheduler.min_lr * scale

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """Parameter groups; ``static_lr: True`` in one keeps its rate off the schedule."""
        return [
            {"name": "backbone", "params": self.backbone.parameters()},
            {
                "name": "classifier",
                "params": self.classifier.parameters(),
                "lr": self.classifier_lr,
                "weight_decay": 0,
            },
        ]

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule from the config; see ``optim`` for the errors."""
        optimizer = build_optimizer(
            self.optimizer,
            self.learnable_params,
            lr=self.lr,
            weight_decay=self.weight_decay,
            exclude_bias_n_norm_wd=self.exclude_bias_n_norm_wd,
            kwargs=self.extra_optimizer_args,
        )
        schedule = build_schedule(
            optimizer,
            self.scheduler,
            interval=self.scheduler_interval,
            total_steps=self.trainer.estimated_stepping_batches,
            max_epochs=self.max_epochs,
            min_lr=self.min_lr,
            warmup_start_lr=self.warmup_start_lr,
            warmup_epochs=self.warmup_epochs,
            lr_decay_steps=self.lr_decay_steps,
        )
        return optimizer if schedule is None else ([optimizer], [schedule])

    def _image_layout(self, x: Tensor) -> Tensor:
        return x if self.no_channel_last else x.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Return ``feats`` (N, D) and ``logits`` (N, C) of images (N, 3, H, W)."""
        feats = self.backbone(self._image_layout(x))
        return {"logits": self.classifier(feats.detach()), "feats": feats}

    def multicrop_forward(self, x: Tensor) -> dict[str, Any]:
        """Return ``feats`` (N, D) of a small crop; the classifier does not see it."""
        return {"feats": self.backbone(self._image_layout(x))}

    def _base_shared_step(self, x: Tensor, targets: Tensor) -> dict[str, Any]:
        out = self(x)
        return out | class_metrics(out["logits"], targets)

    def base_training_step(self, x: Tensor, targets: Tensor) -> dict[str, Any]:
        """One large crop: what ``forward`` returns, and loss, acc1, acc5 of the classifier."""
        return self._base_shared_step(x, targets)

    def base_validation_step(self, x: Tensor, targets: Tensor) -> dict[str, Any]:
        """The same for a validation batch."""
        return self._base_shared_step(x, targets)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Any:
        """Forward all crops of ``[indexes (N,), V views (N, 3, H, W), targets (N,)]``.

        Returns:
            Per-view lists of what the forwards returned; mean ``loss``, ``acc1`` and ``acc5``.
        """
        _, views, targets = batch
        views = [views] if isinstance(views, Tensor) else views
        assert len(views) == self.num_crops, f"got {len(views)} crops, not {self.num_crops}"
        outs = per_view(
            [self.base_training_step(x, targets) for x in views[: self.num_large_crops]]
        )
        for x in views[self.num_large_crops :]:
            for key, value in self.multicrop_forward(x).items():
                outs.setdefault(key, []).append(value)
        for key in ("loss", "acc1", "acc5"):
            outs[key] = sum(outs[key]) / self.num_large_crops
        metrics = {f"train_{k}": outs[k] for k in ("acc1", "acc5")}
        self.log_train({"train_class_loss": outs["loss"], **metrics}, len(targets))
        if self.knn_eval:
            labels = targets.repeat(self.num_large_crops)
            feats = torch.cat(outs["feats"][: self.num_large_crops]).detach()
            self.knn(train_features=feats, train_targets=labels)
        outs["loss"] = over_ranks(outs["loss"], (targets != -1).sum())
        return outs

    def log_train(self, metrics: dict[str, Any], batch_size: int) -> None:
        """Log training metrics by step and by epoch, averaged over ranks."""
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=batch_size)

    def validation_step(
        self, batch: Sequence[Any], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Classifier metrics of ``[images (N, 3, H, W), targets (N,)]``, kept for the epoch."""
        x, targets = batch
        out = self.base_validation_step(x, targets)
        if self.knn_eval and not self.trainer.sanity_checking:
            self.knn(test_features=out["feats"].detach(), test_targets=targets)
        metrics = {f"val_{key}": out[key].detach() for key in ("loss", "acc1", "acc5")}
        metrics["batch_size"] = (targets != -1).sum()
        self.validation_step_outputs.append(metrics)
        return metrics

    def on_validation_epoch_end(self) -> None:
        """Average the epoch's metrics over its labelled images; add the online kNN's."""
        outputs, self.validation_step_outputs = self.validation_step_outputs, []
        sizes = torch.stack([out.pop("batch_size") for out in outputs])
        total = sizes.sum().clamp(min=1)
        log: dict[str, Any] = {
            key: (torch.stack([out[key] for out in outputs]) * sizes).sum() / total
            for key in outputs[0]
        }
        if self.knn_eval and not self.trainer.sanity_checking:
            log["val_knn_acc1"], log["val_knn_acc5"] = self.knn.compute()
            self.knn.reset()
        self.log_dict(log, sync_dist=True, batch_size=int(total))


def class_metrics(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Loss, acc1 and acc5 of a classifier over the labelled rows."""
    return {
        "loss": class_loss(logits, targets),
        "acc1": accuracy(logits, targets, 1),
        "acc5": accuracy(logits, targets, 5),
    }


def per_view(outs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Turn a list of per-view dicts into a dict of per-view lists."""
    return {key: [out[key] for out in outs] for key in outs[0]}
