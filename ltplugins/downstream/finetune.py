# SPDX-License-Identifier: MIT
"""A classifier on a backbone, and the backbone with it: the module that a fine-tuning trains.

``lp_ft``: the classifier first, on a frozen backbone, then all layers, so that a classifier that
knows nothing does not spoil the features (Kumar et al., "Fine-Tuning can Distort Pretrained
Features and Underperform Out-of-Distribution", ICLR 2022, https://arxiv.org/abs/2202.10054).

Legend: N batch, D feature width, C classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltplugins.core.precision import full_precision
from ltplugins.downstream.heads import balanced_hits, build_head
from ltplugins.downstream.layers import layer_groups, rate
from ltplugins.downstream.losses import (
    effective_weights,
    focal_cross_entropy,
    ldam_loss,
    ldam_margins,
    logit_adjusted_loss,
)
from ltplugins.downstream.options import FinetuneConfig, MixConfig
from ltplugins.downstream.start import Start
from ltplugins.host.builtin.optim import build_optimizer

ADAPTERS = "adapters"  # key of a checkpoint: what its merged weights do not show
_ADAPTED = ("lora_", ".base_layer.")


class FineTuner(pl.LightningModule):
    """Trains a classifier on a backbone; its state is ``backbone.*`` and ``classifier.*``.

    Args:
        start: the backbone, trained in place.
        options: of the stage.
        counts: Int[C], images that are trained on.
        lr_scale: images of a global batch / 256.
    """

    counts: Tensor

    def __init__(
        self, start: Start, options: FinetuneConfig, counts: Tensor, lr_scale: float
    ) -> None:
        super().__init__()
        self.options, self.lr_scale = options, lr_scale
        self.backbone = start.backbone
        self.classifier = build_head(options.head, start.width, len(counts), options.scale)
        self.register_buffer("counts", counts, persistent=False)
        self.mix = build_mixup(options.mix, len(counts))
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def probe_epochs(self) -> int:
        """Epochs at the beginning that train the classifier alone."""
        return {"lp_ft": self.options.probe_epochs, "linear": self.options.epochs}.get(
            self.options.mode, 0
        )

    @property
    def is_probing(self) -> bool:
        """Whether the backbone is frozen now."""
        return self.current_epoch < self.probe_epochs

    def on_train_epoch_start(self) -> None:
        """Statistics of a frozen backbone stay what they are."""
        self.backbone.train(not self.is_probing)
        if self.options.freeze_bn:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, Float[N C]."""
        return self.classifier(self.backbone(images).flatten(1))

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Classify one view of each image.

        Args:
            batch: ``[indexes (N,), [view (N, 3, H, W)], targets (N,)]``.
        """
        _, views, targets = batch
        images, labels = (views[0], targets) if self.mix is None else self.mix(views[0], targets)
        with torch.set_grad_enabled(not self.is_probing):
            feats = self.backbone(images).flatten(1)
        logits = self.classifier(feats)
        loss = self.loss(logits, labels)
        acc1 = 100.0 * (logits.argmax(dim=1) == targets).float().mean()
        metrics = {"train_finetune_loss": loss.detach(), "train_acc1": acc1}
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=len(targets))
        return loss

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of the options at the epoch of now.

        Args:
            logits: Float[N C].
            labels: Int[N], or Float[N C] of mixed images.
        """
        loss = self.options.loss
        if loss.name == "logit_adjusted":
            return logit_adjusted_loss(logits, labels, self.counts, tau=loss.tau)
        if loss.name == "focal":
            return focal_cross_entropy(logits, labels, gamma=loss.gamma)
        if loss.name == "ldam":
            margins, weight = ldam_margins(self.counts, loss.margin), None
            if self.current_epoch >= loss.reweight_from * self.total_epochs:
                weight = effective_weights(self.counts, loss.beta)
            return ldam_loss(logits, labels, margins, scale=self.options.scale, weight=weight)
        return full_precision(F.cross_entropy)(logits, labels)

    @property
    def total_epochs(self) -> int:
        """Of the probe and of all layers."""
        return total_epochs(self.options)

    def validation_step(self, batch: Sequence[Any], batch_idx: int) -> None:
        """Keep what the module says of held-out training images; every rank sees all of them."""
        images, targets = batch
        self._seen.append((self(images).argmax(dim=1), targets))

    def on_validation_epoch_end(self) -> None:
        """Log the mean of the classes' accuracies, in percent."""
        preds, targets = (torch.cat(part) for part in zip(*self._seen, strict=True))
        self._seen.clear()
        hits = balanced_hits(preds, targets)
        # The same on every rank, so that their mean is the number.
        self.log("val_balanced_acc1", 100 * hits, sync_dist=True, batch_size=1)

    def configure_optimizers(self) -> Any:
        """One schedule for all: probe, then warm-up and cosine; see :func:`layers.rate`."""
        options = self.options
        common: dict[str, Any] = {"lr": options.lr * self.lr_scale}
        common["weight_decay"] = options.weight_decay
        groups = layer_groups(self.backbone, **common, layer_decay=options.layer_decay)
        head = layer_groups(self.classifier, **common, layer_decay=1.0)
        kwargs = {"momentum": 0.9} if options.optimizer in ("sgd", "lars") else {}
        optimizer = build_optimizer(options.optimizer, [*groups, *head], **common, kwargs=kwargs)
        total = int(self.trainer.estimated_stepping_batches)
        per_epoch = total / self.total_epochs
        factor = partial(
            rate,
            probe=round(self.probe_epochs * per_epoch),
            total=total,
            warmup=options.warmup_epochs * per_epoch,
            start=options.warmup_start_lr / options.lr,
            minimum=options.min_lr / options.lr,
            probe_rate=options.probe_lr / options.lr,
        )
        factors: list[Callable[[int], float]] = [partial(factor, is_head=False)] * len(groups)
        factors += [partial(factor, is_head=True)] * len(head)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write adapted layers as plain ones, so that whatever opens a backbone opens this one."""
        if self.options.mode != "lora":
            return
        state = checkpoint["state_dict"]
        checkpoint[ADAPTERS] = {key: state.pop(key) for key in list(state) if _is_adapted(key)}
        state |= {f"backbone.{key}": value for key, value in merged_layers(self.backbone).items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the adapters and the layers beside them as they were trained."""
        if self.options.mode == "lora":
            own, state = self.state_dict().keys(), checkpoint["state_dict"] | checkpoint[ADAPTERS]
            checkpoint["state_dict"] = {key: state[key] for key in own}


def total_epochs(options: FinetuneConfig) -> int:
    """Of the probe and of all layers."""
    return options.epochs + (options.probe_epochs if options.mode == "lp_ft" else 0)


def build_mixup(mix: MixConfig, num_classes: int) -> Mixup | None:
    """timm's Mixup and CutMix, which draw from NumPy's generator; None where they are off."""
    if not mix.is_on:
        return None
    return Mixup(
        mixup_alpha=mix.mixup,
        cutmix_alpha=mix.cutmix,
        prob=mix.prob,
        label_smoothing=0.0,
        num_classes=num_classes,
    )


def _is_adapted(key: str) -> bool:
    return any(part in key for part in _ADAPTED)


@torch.no_grad()
def merged_layers(backbone: nn.Module) -> dict[str, Tensor]:
    """The state of the layers that have adapters, W + (alpha / r) B A, by their plain names."""
    state: dict[str, Tensor] = {}
    for name, layer in backbone.named_modules():
        if hasattr(layer, "get_delta_weight"):
            (adapter,) = layer.active_adapters  # type: ignore[misc]
            base: Any = layer.base_layer
            state |= {f"{name}.{key}": value for key, value in base.state_dict().items()}
            state[f"{name}.weight"] = base.weight + layer.get_delta_weight(adapter)  # type: ignore[operator]
    return state
