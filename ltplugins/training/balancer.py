# SPDX-License-Identifier: MIT
"""The second stage of decoupled training: re-train a classifier on images drawn by class.

It serves every method with a classifier of its own (``own_classifier``), ICCL-style first. That
paper (https://arxiv.org/abs/2110.10048) balances the classifier after the representation, with
distillation from the first stage; its text was not read, and the form here is our choice: class-
aware sampling, backbone frozen or at a low rate, L = (1 - w) CE + w T^2 KL(teacher || student) with
the first stage's classifier as teacher. Without distillation and with ``init: fresh`` it is cRT
(Kang et al. 2020, "Decoupling Representation and Classifier", https://arxiv.org/abs/1910.09217).

Legend: N batch, F feature width, C classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from ltplugins.config.data import DataPaths
from ltplugins.config.sections import Devices
from ltplugins.core.errors import UserError
from ltplugins.core.modes import looked_at
from ltplugins.core.ranges import Above, AtLeast, Below, Seed
from ltplugins.core.schema import Section
from ltplugins.losses.iccl import balance_loss


@dataclass(frozen=True)
class BalanceConfig(Section):
    """``ltplugins balance``: its keys. Rates are for 256 images, as everywhere."""

    run: str  # the folder of a finished run
    output_dir: str | None = None  # null: that folder's name and "-balanced"
    data: DataPaths = field(default_factory=DataPaths)  # of the run's data that lie elsewhere now
    epochs: Annotated[int, AtLeast(1)] = 10  # of N draws each
    batch_size: Annotated[int, AtLeast(1)] = 256  # of each process
    lr: Annotated[float, Above(0)] = 0.1
    backbone_lr: Annotated[float, AtLeast(0)] = 0.0  # 0: frozen, BatchNorm statistics included
    momentum: Annotated[float, Below(0, 1)] = 0.9
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    # Of the class-aware draws: 0 = classes alike, 1 = reversed frequency.
    gamma: Annotated[float, AtLeast(0)] = 0.0
    init: Literal["stage_1", "fresh"] = "stage_1"  # where the classifier starts
    distill_weight: Annotated[float, Below(0, 1)] = 0.0  # w; at 1 no label would count
    distill_temperature: Annotated[float, Above(0)] = 2.0  # T
    seed: Seed = 0
    accelerator: str | None = None  # null: the run's own
    devices: Devices = None  # null: the run's own
    overwrite: bool = False  # replace what is in output_dir


class ClassifierBalancer(pl.LightningModule):
    """Trains the classifier of a method; its ``state_dict`` is the method's own.

    So the checkpoints are those of the method, and everything that reads one reads these. What the
    classifier does not need (projection head, centroids) stays in them as the first stage left it.

    Args:
        method: with the first stage's weights; it is trained in place.
        options: of the stage.
        lr_scale: images of a global batch / 256.
    """

    def __init__(self, method: Any, options: BalanceConfig, lr_scale: float) -> None:
        super().__init__()
        self.options, self.lr_scale = options, lr_scale
        self.trains_backbone = options.backbone_lr > 0
        method.requires_grad_(False)
        self.teacher = copy.deepcopy(method).eval() if options.distill_weight > 0 else None
        self.method = method
        self.head = head_parameters(method)
        if options.init == "fresh":
            _reset(method, self.head)
        for parameter in self.head:
            parameter.requires_grad_(True)
        if self.trains_backbone:
            method.backbone.requires_grad_(True)

    @property
    def backbone(self) -> Any:
        """The method's own."""
        return self.method.backbone

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Collect the state of the method alone, so that a checkpoint is one of the method."""
        return self.method.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Into the method; the teacher is the first stage's and never saved."""
        return self.method.load_state_dict(state_dict, strict=strict, assign=assign)

    def on_train_epoch_start(self) -> None:
        """Statistics of a frozen backbone stay what they are."""
        self.method.eval()
        if self.trains_backbone:
            self.method.backbone.train()

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Classify class-aware images.

        Args:
            batch: ``[indexes (N,), [view (N, 3, H, W)], targets (N,)]``.
        """
        _, views, targets = batch
        x = views[0]
        with torch.set_grad_enabled(self.trains_backbone):
            feats = self.method.backbone(x)
        logits = self.method.class_logits(feats)
        loss = balance_loss(
            logits,
            targets,
            self._teach(x, feats),
            weight=self.options.distill_weight,
            temperature=self.options.distill_temperature,
        )
        acc1 = 100.0 * (logits.argmax(dim=1) == targets).float().mean()
        metrics = {"train_balance_loss": loss.detach(), "train_acc1": acc1}
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=len(targets))
        return loss

    def _teach(self, x: Tensor, feats: Tensor) -> Tensor | None:
        """The first stage's logits of the same images, Float[N C]."""
        if self.teacher is None:
            return None
        with torch.no_grad():
            if self.trains_backbone:
                feats = self.teacher.backbone(x)
            return self.teacher.class_logits(feats)

    def configure_optimizers(self) -> Any:
        """Train by SGD, its rates along one cosine to 0 over the whole stage."""
        options = self.options
        groups = [{"params": self.head, "lr": options.lr * self.lr_scale}]
        if self.trains_backbone:
            backbone = list(self.method.backbone.parameters())
            groups.append({"params": backbone, "lr": options.backbone_lr * self.lr_scale})
        optimizer = torch.optim.SGD(
            groups, momentum=options.momentum, weight_decay=options.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def head_parameters(method: Any) -> list[nn.Parameter]:
    """The parameters that ``class_logits`` reads: those that a gradient of its output reaches."""
    parameters = list(method.parameters())
    needed = [p.requires_grad for p in parameters]
    method.requires_grad_(True)
    feats = torch.randn(2, method.features_dim, device=parameters[0].device).to(parameters[0].dtype)
    with looked_at(method, grads=True):
        grads = torch.autograd.grad(method.class_logits(feats).sum(), parameters, allow_unused=True)
    for parameter, before in zip(parameters, needed, strict=True):
        parameter.requires_grad_(before)
    return [p for p, grad in zip(parameters, grads, strict=True) if grad is not None]


def _reset(method: nn.Module, head: list[nn.Parameter]) -> None:
    """Draw the head's layers anew.

    Raises:
        UserError: a layer that does not know how.
    """
    wanted = {id(p) for p in head}
    for name, module in method.named_modules():
        own = {id(p) for p in module.parameters(recurse=False)}
        if not own & wanted:
            continue
        if not hasattr(module, "reset_parameters"):
            raise UserError(
                f"init=fresh: {name or 'the classifier'} ({type(module).__name__}) cannot be drawn "
                f"anew. Set init=stage_1."
            )
        module.reset_parameters()
