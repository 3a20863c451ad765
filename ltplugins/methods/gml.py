# SPDX-License-Identifier: MIT
"""GML: classify by class likelihoods of stored keys and by a cosine classifier, both with priors.

Paper: Suh and Seo, "Long-Tailed Recognition by Mutual Information Maximization between Latent
Features and Ground-Truth Labels", ICML 2023, https://arxiv.org/abs/2305.01160
Official code: https://github.com/bluecdm/Long-tailed-recognition at 1ff816c

Per step: views cls, q, k -> features of [cls; q] and of k -> (features of k, labels, indexes) into
a class-wise queue -> keys = MLP_k(queue) -> L_sup on cls, L_con and L_T of q against the keys, L_kd
(``losses/gml.py``). At test time: the largest cosine, no prior added.

Keys come from an EMA twin (momentum mode), or from a frozen run (``teacher``), whose MLP_k is then
trained by gradient through the queue, from MLP_q's weights where they fit. The same network's
logits of cls are what L_kd distils: in momentum mode the twin of backbone and classifier sees
[cls; k]. This is the code's method; the paper has not been read.

Known differences from the official code, beside those in ``losses/gml.py`` and
``parts/class_queue.py``:
- No ShuffleBN. Batch statistics can give away which *image* a key is of, but the task is its class;
  and the shuffle is what mixes up features and labels there.
- The EMA moves parameters after the optimizer's step, by the host, officially just before the next
  key forward. Where nothing is distilled (``distill_weight: 0``) the twin sees k alone; officially
  [cls; k] then too, where cls only takes part in the batch statistics.
- Learned priors: the counts of the whole training set, in the checkpoint.
- The loss is the mean over the global batch also where ranks have batches of different sizes.
- Augmentations: officially AutoAugment and Cutout (CIFAR) or RandAugment (ImageNet-LT); the files
  ``*_gml`` here have crops, flips and colour jitter. The paper's CIFAR networks are ResNet-32/56.
- The host's online classifier (``train_class_loss``) stays beside the cosine one, as a probe.

Legend: N batch of this rank, M of all ranks, D feature width, K filled slots, C classes.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ltplugins.core.distributed import gather_no_grad, rank_share
from ltplugins.core.errors import UserError
from ltplugins.core.precision import at_least_float32
from ltplugins.losses.gml import (
    ContrastiveTerms,
    GMLTerms,
    contrastive_terms,
    gml_loss,
)
from ltplugins.methods.needs import Needs
from ltplugins.methods.parts.class_prior import ClassPrior
from ltplugins.methods.parts.class_queue import ClassQueue
from ltplugins.methods.parts.cosine_head import CosineClassifier, project_rows, projector
from ltplugins.methods.parts.gml_options import GMLConfig, check_against_classes
from ltplugins.methods.parts.teacher import Teacher, require_same_teacher

Module = TypeVar("Module", bound=nn.Module)


class GMLMixin(ClassPrior):
    """Views: one for the classifier, query and key; with ``contrast_weight: 0`` the first alone.

    ``train_nce_loss`` is L_con, ``train_gml_*_loss`` are the other parts, ``train_gml_acc1`` is the
    cosine classifier's accuracy on the first view. ``train_class_loss`` is the online classifier's,
    which sees detached features and is not the method's own.
    """

    method_name = "gml"
    method_config = GMLConfig
    uses_momentum = True
    needs = Needs(
        indexes=True,
        labels=True,
        views=3,
        hint="Take augmentations=small_gml, small_grey_gml or imagenet_gml (with "
        "contrast_weight=0: one view).",
    )
    own_classifier = True
    momentum_projector: nn.Sequential
    key_projector: nn.Sequential
    training_only = ("momentum_", "projector.", "key_projector.", "gml_", "class_counts")

    @classmethod
    def inference_config(cls, cfg: DictConfig) -> DictConfig:
        """No teacher, no queue: the backbone and the cosine classifier are enough."""
        without = {"teacher": None, "distill_weight": 0.0, "contrast_weight": 0.0}
        change = {
            "method_kwargs": without,
            "momentum": {"classifier": False},
            "data": {"num_large_crops": 1},
        }
        return OmegaConf.merge(cfg, change)  # type: ignore[return-value]

    @classmethod
    def needs_under(cls, cfg: DictConfig) -> Needs:
        """One view without the contrastive term."""
        weight = OmegaConf.select(cfg, "method_kwargs.contrast_weight")
        return replace(cls.needs, views=1) if weight == 0 else cls.needs

    def setup_method(self, options: GMLConfig) -> None:
        """Build classifier, projectors and queue; open the teacher."""
        check_against_classes(options, self.num_classes)
        self.gml = options
        self.cosine_classifier = CosineClassifier(self.features_dim, self.num_classes)
        self.gml_teacher = None
        if options.teacher is not None:
            self.gml_teacher = Teacher(options.teacher, "method_kwargs.teacher")
            if options.alpha > 0:
                self.gml_teacher.require_classifier(self.num_classes)
        self.gml_contrasts = options.contrast_weight > 0
        self.gml_has_twin = self.gml_contrasts and self.gml_teacher is None
        self.gml_twin_teaches = self.gml_has_twin and options.alpha > 0
        if not self.gml_has_twin:
            if self.momentum_classifier is not None:
                raise UserError(
                    "momentum.classifier learns on the EMA twin, which gml has only with "
                    "contrast_weight > 0 and without a teacher. Set momentum.classifier=false."
                )
            del self.momentum_backbone
        if self.gml_contrasts:
            self._build_contrast(options)
        self.setup_prior(options.class_counts)

    def _build_contrast(self, options: GMLConfig) -> None:
        hidden, out = options.proj_hidden_dim, options.proj_output_dim
        width = self.features_dim
        self.projector = projector(width, hidden or width, out)
        if self.gml_teacher is None:
            self.momentum_projector = _twin_of(self.projector)
            if self.gml_twin_teaches:
                self.momentum_cosine_classifier = _twin_of(self.cosine_classifier)
        else:
            width = self.gml_teacher.features_dim
            self.key_projector = projector(width, hidden or width, out)
            if width == self.features_dim:  # as officially: MLP_k starts as MLP_q
                self.key_projector.load_state_dict(self.projector.state_dict())
        self.gml_log_temperature = nn.Parameter(torch.tensor(math.log(options.temperature)))
        self.gml_queue = ClassQueue(options.queue_size, width, self.num_classes, options.base_k)

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The host's groups, the classifier, the projectors that learn, and the temperature."""
        groups = [*super().learnable_params]
        for name in ("cosine_classifier", "projector", "key_projector"):
            if hasattr(self, name):
                groups.append({"name": name, "params": getattr(self, name).parameters()})
        if self.gml_contrasts:
            temperature = {"name": "temperature", "params": [self.gml_log_temperature]}
            groups.append({**temperature, "weight_decay": 0})
        return groups

    @property
    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(online, twin) modules that the host's updater keeps together; none with a teacher."""
        if not self.gml_has_twin:
            return []
        pairs = [*super().momentum_pairs, (self.projector, self.momentum_projector)]
        if self.gml_twin_teaches:
            pairs.append((self.cosine_classifier, self.momentum_cosine_classifier))
        return pairs

    @torch.no_grad()
    def momentum_forward(self, x: Tensor) -> dict[str, Any]:
        """The key encoder's features; a host's validation asks for them in every mode."""
        if self.gml_has_twin:
            return super().momentum_forward(x)
        return {
            "feats": self.backbone(x) if self.gml_teacher is None else self.gml_teacher.feats(x)
        }

    def class_logits(self, feats: Tensor) -> Tensor:
        """scale x cosines, without prior: balanced predictions. See the base."""
        return self.gml.scale * self.cosine_classifier(feats)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Classify the first view; contrast the second with the queue, which the third has joined.

        Args:
            batch: ``[indexes (N,), [cls, q, k] (N, 3, H, W) each, targets (N,)]``.
        """
        indexes, views, targets = batch
        # One forward, as officially: BatchNorm sees both views together.
        online = views[: 2 if self.gml_contrasts else 1]
        out = self.base_training_step(torch.cat(list(online)), targets.repeat(len(online)))
        feats = out["feats"].chunk(len(online))
        cosines = self.cosine_classifier(feats[0])
        contrastive, keys, teacher_logits = None, {}, None
        if self.gml_twin_teaches:
            both = torch.cat([views[0], views[2]])  # one batch to its BatchNorms, as officially
            keys = self._shared_step_momentum(both, targets.repeat(2))
            twin_feats, key_feats = keys["feats"].chunk(2)
            teacher_logits = self.gml.scale * self.momentum_cosine_classifier(twin_feats)
        elif self.gml_contrasts:
            keys = self._shared_step_momentum(views[2], targets)
            key_feats = keys["feats"]
        if self.gml_contrasts:
            contrastive = self._contrast(feats[1], key_feats, targets, indexes)
        if self.gml_teacher is not None and self.gml.alpha > 0:
            teacher_logits = self.gml_teacher.logits(views[0])
        terms = gml_loss(
            cosines,
            targets,
            self.prior,
            contrastive,
            scale=self.gml.scale,
            teacher_logits=teacher_logits,
            distill_temperature=self.gml.distill_temperature,
            sup_weight=self.gml.sup_weight,
            contrast_weight=self.gml.contrast_weight,
            distill_weight=self.gml.alpha,
        )
        self._log_step(out, keys, terms, cosines, targets)
        if self.knn_eval:
            self.knn(train_features=feats[0].detach(), train_targets=targets)
        # DDP averages over ranks; this makes it the mean over images, whatever each rank has.
        share = rank_share(len(targets), len(gather_no_grad(targets)))
        return share * (terms.total + out["loss"] + keys.get("loss", 0.0))

    def _contrast(
        self, feats: Tensor, key_feats: Tensor, targets: Tensor, indexes: Tensor
    ) -> ContrastiveTerms:
        """L_con and L_T of this rank's queries against the queue, their own keys included."""
        q = F.normalize(at_least_float32(self.projector(feats)), dim=1)
        new = (key_feats.detach(), targets, indexes)
        self.gml_queue.push(*(gather_no_grad(x) for x in new))
        stored = self.gml_queue.stored()
        if self.gml_teacher is None:
            with torch.no_grad():
                keys = project_rows(self.momentum_projector, stored.feats, stored.filled)
        else:
            keys = project_rows(self.key_projector, stored.feats, stored.filled)
        return contrastive_terms(
            q,
            F.normalize(at_least_float32(keys), dim=1),
            stored.targets,
            stored.indexes,
            targets,
            indexes,
            self.prior,
            temperature=self.gml_log_temperature.exp(),
            key_filled=stored.filled,
        )

    def _log_step(
        self,
        out: dict[str, Any],
        keys: dict[str, Any],
        terms: GMLTerms,
        cosines: Tensor,
        targets: Tensor,
    ) -> None:
        hits = cosines.detach().argmax(dim=1) == targets
        metrics = {
            "train_gml_sup_loss": terms.supervised.detach(),
            "train_gml_acc1": 100 * hits.float().mean(),
            "train_class_loss": out["loss"],
        }
        metrics |= {f"train_{k}": out[k] for k in ("acc1", "acc5")}
        if self.gml_contrasts:
            metrics["train_nce_loss"] = terms.contrastive.detach()
            metrics["train_gml_temperature_loss"] = terms.temperature.detach()
            metrics["train_gml_temperature"] = self.gml_log_temperature.detach().exp()
        if self.gml.alpha > 0:
            metrics["train_gml_kd_loss"] = terms.distillation.detach()
        if "loss" in keys:
            metrics |= {f"train_momentum_{k}": keys[k] for k in ("acc1", "acc5")}
            metrics["train_momentum_class_loss"] = keys["loss"]
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=len(targets))

    def on_class_counts(self, counts: Tensor) -> None:
        """Share the queue's slots out among the classes, once their counts are known."""
        if self.gml_contrasts:
            self.gml_queue.allot(counts)

    def setup(self, stage: str) -> None:
        """Tell DDP to leave the queue alone: it is equal on all ranks, and large."""
        super().setup(stage)
        names = {k for k, _ in self.named_buffers() if k.startswith("gml_queue.")}
        ignored = set(getattr(self, "_ddp_params_and_buffers_to_ignore", ()))
        self._ddp_params_and_buffers_to_ignore = sorted(ignored | names)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the teacher by its hash; its weights stay where they are."""
        super().on_save_checkpoint(checkpoint)
        if self.gml_teacher is not None:
            checkpoint["gml_teacher_sha256"] = self.gml_teacher.sha256

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another teacher."""
        super().on_load_checkpoint(checkpoint)
        require_same_teacher(checkpoint.get("gml_teacher_sha256"), self.gml_teacher)


def _twin_of(module: Module) -> Module:
    """A copy that no gradient reaches; the host's updater moves it."""
    return copy.deepcopy(module).requires_grad_(False)
