# SPDX-License-Identifier: MIT
"""ICCL-style: images mixed from two samplers retrieve the centroids of both their classes.

Paper: Tiong et al., "Improving Tail-Class Representation with Centroid Contrastive Learning", 2021,
https://arxiv.org/abs/2110.10048; patent US20220156530A1.
Official code: none was found. Of the same group's https://github.com/salesforce/MoPro at 155cae3
come the recollections of an EMA of centroids and of re-training the classifier (read, not copied).

The full text of the paper was not read. Its abstract and the patent's confirm: an encoder with a
projection head; class centroids as average embeddings; interpolation of an image from a
class-agnostic with one from a class-aware sampler; a loss on the centroids' prediction of both
classes; then a classifier-balancing stage (``ltplugins/stages/balance.py``) with distillation.
Everything else is recalled or chosen, hence "-style", and each constant is an option:
temperature, momentum, gamma of the sampler, Beta(alpha, alpha), weights, curriculum, head. Ours:
- The loss is worked with the centroids before this step's update; classes without one are left out.
- Two views: the first is mixed, the second is the clean branch's; with one, both use it.
- The classifier is the host's ``classifier``, with its learning rate (``optimizer.classifier_lr``),
  but here its gradient reaches the backbone.

Per step: two halves of the batch -> mixed images -> L_ce + a L_cc on both classes; clean
class-agnostic images -> the same on their own class, and the centroids.

Legend: N pairs of this rank, M pairs of all ranks, D embedding dim, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ltplugins.core.distributed import gather_no_grad, rank, rank_share, world_size
from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, AtLeast, Below
from ltplugins.core.schema import Section
from ltplugins.core.seeding import mix_seed
from ltplugins.core.transfer import move, scalar
from ltplugins.losses.iccl import (
    Curriculum,
    centroid_loss,
    curriculum_weights,
    mix_images,
    mixup_cross_entropy,
    update_centroids,
)
from ltplugins.methods.method import Method
from ltplugins.methods.needs import Needs

_LAMBDAS = 0x1CC1  # tells this stream of random numbers from others of the same seed and epoch


@dataclass(frozen=True)
class ICCLConfig(Section):
    """The block ``method_kwargs``. None of the defaults is the paper's: its text was not read."""

    proj_hidden_dim: Annotated[int, AtLeast(1)] | None = None  # null: the feature width
    proj_output_dim: Annotated[int, AtLeast(1)] = 128
    temperature: Annotated[float, Above(0)] = 0.1
    centroid_weight: Annotated[float, AtLeast(0)] = 1.0  # a, of L_cc beside L_ce
    centroid_momentum: Annotated[float, Below(0, 1)] = (
        0.99  # m, per update; .999 per image in MoPro
    )
    bias_correction: bool = True  # rarely seen classes forget their first embeddings
    mixup_alpha: Annotated[float, Above(0)] = 1.0  # lambda ~ Beta(alpha, alpha); 1 = uniform
    curriculum: Curriculum = "parabolic-style"
    clean_weight: Annotated[float, AtLeast(0)] = (
        1.0  # times the curriculum's weight of the clean branch
    )
    mixed_weight: Annotated[float, AtLeast(0)] = 1.0  # and of the mixed one; 0 leaves it out


class ICCLMixin(Method):
    """A batch holds two halves: class-agnostic images, and class-aware ones to mix them with.

    All losses reach the backbone: ``train_mixup_loss`` (L_ce of the mixed images),
    ``train_centroid_loss`` (their L_cc), ``train_class_loss`` and ``train_clean_centroid_loss`` of
    the clean branch. ``train_acc1``, ``val_acc1`` and ``val_loss`` are of the classifier that is
    learned with them, no detached probe. Also logged: the clean branch's weight
    (train_iccl_clean_weight) and the share of classes that have a centroid (train_iccl_filled).
    The buffers iccl_centroids and iccl_updates are in the checkpoint.
    """

    method_name = "iccl"
    method_config = ICCLConfig
    needs = Needs(labels=True, views=(1, 2), samplers=("two_branch",))
    own_classifier = True
    iccl_centroids: Tensor  # Float[C D], unit norm where filled
    iccl_updates: Tensor  # Int[C], 0 = no centroid yet

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        if self.batch_size % 2:
            raise UserError(
                f"optimizer.batch_size: iccl needs an even number, it counts both images of a "
                f"mixed pair; got {self.batch_size}."
            )

    def setup_method(self, options: ICCLConfig) -> None:
        """Build the projection head and the centroids, empty."""
        self.iccl = options
        width, out = self.features_dim, options.proj_output_dim
        hidden = options.proj_hidden_dim or width
        self.projector = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))
        self.register_buffer("iccl_centroids", torch.zeros(self.num_classes, out))
        updates = torch.zeros(self.num_classes, dtype=torch.int64)
        self.register_buffer("iccl_updates", updates)
        seed = OmegaConf.select(self.cfg, "seed")
        self.iccl_seed = 5 if seed is None else int(seed)  # solo-learn's default

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The host's groups, the classifier among them, and the projection head."""
        projector = {"name": "projector", "params": self.projector.parameters()}
        return [*super().learnable_params, projector]

    def class_logits(self, feats: Tensor) -> Tensor:
        """Logits of the classifier, Float[N C], from feats, Float[N F]."""
        return self.classifier(feats)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """``feats`` (N, F), ``logits`` (N, C) whose gradient passes, ``z`` (N, D) of unit norm."""
        out = super().forward(x)
        feats = out["feats"]
        z = F.normalize(self.projector(feats), dim=1)
        return {**out, "logits": self.class_logits(feats), "z": z}

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Both branches, weighted by the curriculum; then the centroids.

        Args:
            batch: ``[indexes (2N,), [views 1 or 2 x (2N, 3, H, W)], targets (2N,)]``; rows 0 to
                N - 1 are class-agnostic, row N + i is the class-aware partner of row i.
        """
        _, views, targets = batch
        views = [views] if isinstance(views, Tensor) else views
        if len(targets) % 2:
            raise UserError(f"iccl: a batch of {len(targets)} images cannot be split into pairs.")
        pairs = len(targets) // 2
        own, other = targets[:pairs], targets[pairs:]
        progress = self.current_epoch / self.max_epochs
        clean_weight, mixed_weight = curriculum_weights(progress, self.iccl.curriculum)
        clean_weight *= self.iccl.clean_weight
        mixed_weight *= self.iccl.mixed_weight

        lam = move(self._draw_lambda(pairs, batch_idx), views[0].device)
        # Without weight for good it is left out: BatchNorm would go by images that no loss sees.
        mixed = None
        if self.iccl.mixed_weight:
            mixed = self(mix_images(views[0][:pairs], views[0][pairs:], lam))
        # Without weight it only serves the centroids.
        with torch.set_grad_enabled(torch.is_grad_enabled() and clean_weight > 0):
            clean = self.base_training_step(views[-1][:pairs], own)
        # A copy: the update below writes into the buffer before the backward pass reads it.
        centroids = self.iccl_centroids.clone()
        mixed_losses = mixed and self._losses(mixed, centroids, own, other, lam)
        clean_losses = self._losses(clean, centroids, own, own, torch.ones_like(lam))
        all_z, all_targets = gather_no_grad(clean["z"].detach()), gather_no_grad(own)
        self._log_step(clean, clean_losses, mixed_losses, clean_weight, own)
        self._update_centroids(all_z, all_targets)
        # DDP averages over ranks: a rank with fewer pairs counts for less.
        share = rank_share(pairs, len(all_targets))
        total = clean_weight * self._total(clean_losses)
        if mixed_losses:
            total = total + mixed_weight * self._total(mixed_losses)
        return share * total

    def _losses(
        self, out: dict[str, Any], centroids: Tensor, own: Tensor, other: Tensor, lam: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_ce and L_cc of one branch, means over this rank's pairs."""
        contrast = centroid_loss(
            out["z"],
            centroids,
            own,
            other,
            lam,
            temperature=self.iccl.temperature,
            filled=self.iccl_updates > 0,
        )
        return mixup_cross_entropy(out["logits"], own, other, lam), contrast

    def _total(self, losses: tuple[Tensor, Tensor]) -> Tensor:
        return losses[0] + self.iccl.centroid_weight * losses[1]

    def _update_centroids(self, z: Tensor, targets: Tensor) -> None:
        """From the clean embeddings of all ranks, so that every rank holds the same."""
        centroids, updates = update_centroids(
            self.iccl_centroids,
            self.iccl_updates,
            z,
            targets,
            self.iccl.centroid_momentum,
            bias_correction=self.iccl.bias_correction,
        )
        self.iccl_centroids.copy_(centroids)
        self.iccl_updates.copy_(updates)

    def _draw_lambda(self, pairs: int, batch_idx: int) -> Tensor:
        """Float[N] from (seed, epoch, batch) and the pair's place in the global batch alone.

        A resumed run repeats them, and W ranks draw what one process draws for the joined batch:
        pair i of rank r is number i W + r of it, as the sampler shares them.
        """
        seed = mix_seed(self.iccl_seed, self.current_epoch, batch_idx, _LAMBDAS)
        rng = np.random.Generator(np.random.PCG64(seed))
        alpha, ranks = self.iccl.mixup_alpha, world_size()
        drawn = rng.beta(alpha, alpha, size=pairs * ranks)[rank() :: ranks]
        return torch.from_numpy(drawn.astype(np.float32))

    def _log_step(
        self,
        clean: dict[str, Any],
        clean_losses: tuple[Tensor, Tensor],
        mixed_losses: tuple[Tensor, Tensor] | None,
        clean_weight: float,
        own: Tensor,
    ) -> None:
        metrics = {
            "train_class_loss": clean_losses[0],
            "train_clean_centroid_loss": clean_losses[1],
            "train_acc1": clean["acc1"],
            "train_acc5": clean["acc5"],
            "train_iccl_filled": (self.iccl_updates > 0).float().mean(),
            "train_iccl_clean_weight": scalar(clean_weight, own.device),
        }
        if mixed_losses:
            metrics |= {"train_mixup_loss": mixed_losses[0], "train_centroid_loss": mixed_losses[1]}
        metrics = {name: value.detach() for name, value in metrics.items()}
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=len(own))
        if self.knn_eval:
            self.knn(train_features=clean["feats"].detach(), train_targets=own)
