# SPDX-License-Identifier: MIT
"""The module that a segmentation trains: a network, a loss of pixels, and mIoU on the way.

Legend: B batch, C classes, H, W of an image.
"""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from ltplugins.downstream.segmentation.decoders import Segmentation
from ltplugins.downstream.segmentation.losses import build_loss, total
from ltplugins.downstream.segmentation.options import IGNORE, SegmentConfig
from ltplugins.downstream.segmentation.scores import class_iou, mean_of


class Segmenter(pl.LightningModule):
    """Trains a decoder on an encoder, and the encoder with it where it is not frozen.

    Args:
        net: Float[B 3 H W] to Float[B C H W].
        options: of the stage.
        pixel_counts: Int[C], of the training masks.
    """

    pixel_counts: Tensor

    def __init__(self, net: Segmentation, options: SegmentConfig, pixel_counts: Tensor) -> None:
        super().__init__()
        self.net, self.options = net, options
        self.register_buffer("pixel_counts", pixel_counts, persistent=False)
        self.loss = build_loss(options.loss, pixel_counts)
        self.matrix = MulticlassConfusionMatrix(
            len(pixel_counts), ignore_index=IGNORE, validate_args=False
        )
        if options.freeze:
            net.encoder.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """What checkpoints ask for its stem."""
        return self.net.encoder

    @property
    def encoder_rate(self) -> float:
        """Share of the rate that the encoder learns at."""
        given = self.options.encoder_rate
        return given or (0.1 if self.options.weights == "run" else 1.0)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, Float[B C H W]."""
        return self.net(images)

    def on_train_epoch_start(self) -> None:
        """Statistics of a frozen encoder stay what they are."""
        self.net.train()
        self.net.encoder.train(not self.options.freeze)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compare logits with masks.

        Args:
            batch: ``(images (B, 3, H, W), masks (B, H, W))``.
        """
        images, masks = batch
        terms = self.loss(self(images), masks)
        loss = total(terms)
        metrics = {"train_segment_loss": loss.detach()}
        if len(terms) > 1:
            metrics |= {f"train_{name}_loss": value.detach() for name, value in terms.items()}
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count pixels."""
        images, masks = batch
        self.matrix.update(self(images).argmax(dim=1), masks)

    def on_validation_epoch_end(self) -> None:
        """Log mIoU of the whole part, in percent: ``compute`` sums the ranks' matrices."""
        found = mean_of(class_iou(self.matrix.compute().cpu()))
        self.matrix.reset()
        # The same on every rank, so that their mean is the number.
        self.log("val_miou", 100 * (found or 0.0), sync_dist=True, batch_size=1)

    def configure_optimizers(self) -> Any:
        """AdamW, its rates up for the warm-up and down a cosine to 0, step by step."""
        options = self.options
        inside = {id(p) for p in self.net.encoder.parameters()}
        decoder = [p for p in self.net.parameters() if id(p) not in inside]
        groups: list[dict[str, Any]] = [{"params": decoder, "lr": options.lr}]
        if not options.freeze:
            rate = options.lr * self.encoder_rate
            groups.append({"params": list(self.net.encoder.parameters()), "lr": rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        warmup = min(steps - 1, round(options.warmup_epochs * steps / options.epochs))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: rate_at(k, steps, warmup))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Share of the rate at a step: a line up to 1 in the warm-up, then half a cosine to 0.

    >>> [round(rate_at(k, 10, 2), 2) for k in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return 0.5 * (1 + math.cos(math.pi * done))
