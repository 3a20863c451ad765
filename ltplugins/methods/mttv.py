# SPDX-License-Identifier: MIT
"""MTTV: two images, a plain and a strong view of each, fused across the images into one pair.

Paper: "Maximally Useful and Minimally Redundant: The Key to Self Supervised Learning for Imbalanced
Data", v1 2025 ("more than two views", MTTV), v2 2026, https://arxiv.org/abs/2509.08469
Official code: https://github.com/anonymouspersoncscv/MTTV at 247efd5

Per step: pairs of images x, y -> u = f_q(plain x) + f_q(strong y), v = f_k(strong x) + f_k(plain y)
with EMA keys f_k -> contrast u_i with v_i, without extreme similarities (``losses/mttv.py``).

This is the code's method; the papers' own equations, v2's objective and the settings behind the
published tables have not been verified. What only the paper, its reviews or a commented line of
the code names is an option that ends in "-style".

Known differences from the official code, beside those in ``losses/mttv.py``:
- The partners come from the sampler ``paired``; ``optimizer.batch_size`` counts both images of a
  pair, so the official 1024 is 2048 here.
- The loss is of the global batch, officially of each GPU's own.
- The keys are updated after the optimizer's step, by the host, officially just before the next key
  forward: the same numbers without gradient accumulation.
- The plain view of a non-square image is resized and centre-cropped, officially squashed.

Legend: N pairs of this rank, M pairs of all ranks, D embedding dim.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ltplugins.core.distributed import gather, gather_no_grad, gather_with_offset, over_ranks
from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, AtLeast, Below, UpTo
from ltplugins.core.schema import Section
from ltplugins.data.augment.schema import AugmentationBlock, parse_augmentations
from ltplugins.losses.mttv import (
    FilteredProbs,
    filtered_log_probs,
    fuse,
    reduce_log_probs,
)
from ltplugins.methods.method import Method
from ltplugins.methods.needs import Needs


@dataclass(frozen=True)
class MTTVConfig(Section):
    """The block ``method_kwargs``; the defaults are the official CIFAR settings."""

    proj_hidden_dim: Annotated[int, AtLeast(1)] | None = None  # null: the feature width
    proj_output_dim: Annotated[int, AtLeast(1)] | None = None  # null: a quarter of it
    temperature: Annotated[float, Above(0)] = 0.3
    lower: Annotated[float, Below(0, 1)] = 0.1  # drop |cosine| below
    upper: Annotated[float, UpTo(0, 1)] = 0.9  # and above; 1 in the official ImageNet variant
    reduction: Literal["log_mean", "mean_log"] = "log_mean"  # mean_log is ours
    filter: Literal["all", "negatives-style"] = "all"  # whether positives are dropped too
    fusion: Literal["sum", "concat-style"] = "sum"
    # in_batch-style: neighbours of the sampler's batch are partners; half the pairs an epoch
    pairing: Literal["sampler", "in_batch-style"] = "sampler"
    plain_first_view: bool = True  # false: any first view, to ablate it

    def refusals(self) -> Iterator[tuple[str, str]]:
        """The band is not empty."""
        if not self.lower < self.upper:
            yield "lower", f"a number below upper ({self.upper:g})"


class MTTVMixin(Method):
    """Views: one plain (normalised only), one strong. A batch holds pairs of images side by side.

    ``train_nce_loss`` is what trains backbone and projector; ``train_class_loss`` only reaches the
    detached online classifier. Also logged: the share of similarities dropped by the filter and the
    share of positives that passed it (train_mttv_dropped, train_mttv_positives).
    """

    method_name = "mttv"
    method_config = MTTVConfig
    uses_momentum = True
    needs = Needs(samplers=("paired",))

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        if self.batch_size % 2:
            raise UserError(
                f"optimizer.batch_size: mttv needs an even number, it counts both images of a "
                f"pair; got {self.batch_size}."
            )

    @classmethod
    def needs_under(cls, cfg: DictConfig) -> Needs:
        """Any sampler where pairs are made of a batch as it comes."""
        pairing = OmegaConf.select(cfg, "method_kwargs.pairing") or "sampler"
        return cls.needs if pairing == "sampler" else replace(cls.needs, samplers=())

    def setup_method(self, options: MTTVConfig) -> None:
        """Build the projector and its twin."""
        self.mttv = options
        if options.plain_first_view:
            _require_plain_first(self.cfg)
        width = self.features_dim
        hidden, out = options.proj_hidden_dim or width, options.proj_output_dim or width // 4
        self.projector = projector(width, hidden, out)
        self.momentum_projector = copy.deepcopy(self.projector).requires_grad_(False)

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The host's groups and the projector."""
        projector = {"name": "projector", "params": self.projector.parameters()}
        return [*super().learnable_params, projector]

    @property
    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(online, twin) modules that the host's updater keeps together."""
        return [*super().momentum_pairs, (self.projector, self.momentum_projector)]

    def forward(self, x: Tensor) -> dict[str, Any]:
        """The host's output with ``z`` (N, D)."""
        out = super().forward(x)
        return {**out, "z": self.projector(out["feats"])}

    @torch.no_grad()
    def momentum_forward(self, x: Tensor) -> dict[str, Any]:
        """The twin's output with ``z`` (N, D), without gradient."""
        out = super().momentum_forward(x)
        return {**out, "z": self.momentum_projector(out["feats"])}

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """Fuse across the two images of each pair, contrast queries with keys.

        Args:
            batch: ``[indexes (2N,), [plain, strong] 2 x (2N, 3, H, W), targets (2N,)]``; rows 2i
                and 2i + 1 are a pair.
        """
        _, (plain, strong), targets = batch
        if len(targets) % 2:
            raise UserError(f"mttv: a batch of {len(targets)} images cannot be split into pairs.")
        x, y = slice(0, None, 2), slice(1, None, 2)
        queries = [
            self.base_training_step(plain[x], targets[x]),
            self.base_training_step(strong[y], targets[y]),
        ]
        keys = [
            self._shared_step_momentum(strong[x], targets[x]),
            self._shared_step_momentum(plain[y], targets[y]),
        ]
        u = fuse(queries[0]["z"], queries[1]["z"], concat=self.mttv.fusion == "concat-style")
        v = fuse(keys[0]["z"], keys[1]["z"], concat=self.mttv.fusion == "concat-style")
        nce_loss, probs = self._contrast(u, v)
        metrics = {
            "train_nce_loss": nce_loss.detach(),
            "train_mttv_dropped": probs.dropped,
            "train_mttv_positives": probs.has_positive.float().mean(),
        }
        self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=len(targets))
        return nce_loss + self._class_loss(queries, keys, targets)

    def _contrast(self, u: Tensor, v: Tensor) -> tuple[Tensor, FilteredProbs]:
        """The loss of the global batch, equal on every rank, and this rank's anchors' shares.

        Each rank does the similarities of its own anchors only; the log of the mean is of all.
        """
        all_u, offset = gather_with_offset(u)
        probs = filtered_log_probs(
            u,
            v,
            all_u=all_u,
            all_v=gather_no_grad(v),
            offset=offset,
            temperature=self.mttv.temperature,
            lower=self.mttv.lower,
            upper=self.mttv.upper,
            filter_positives=self.mttv.filter == "all",
        )
        has_positive = gather_no_grad(probs.has_positive.byte()).bool()
        return reduce_log_probs(gather(probs.log_p), has_positive, self.mttv.reduction), probs

    def _class_loss(
        self, queries: list[dict[str, Any]], keys: list[dict[str, Any]], targets: Tensor
    ) -> Tensor:
        """What the host's own step does with its views: classifier metrics, online kNN."""
        views = {"": queries}
        if self.momentum_classifier is not None:
            views["momentum_"] = keys
        losses = []
        for prefix, outs in views.items():
            means = {k: sum(out[k] for out in outs) / len(outs) for k in ("loss", "acc1", "acc5")}
            metrics = {f"train_{prefix}{k}": means[k] for k in ("acc1", "acc5")}
            metrics[f"train_{prefix}class_loss"] = means["loss"]
            self.log_dict(metrics, on_epoch=True, sync_dist=True, batch_size=len(targets))
            labelled = [(targets[half::2] != -1).sum() for half in (0, 1)]
            losses += [over_ranks(out["loss"], n) for out, n in zip(outs, labelled, strict=True)]
        if self.knn_eval:
            labels = torch.cat([targets[0::2], targets[1::2]])
            feats = torch.cat([out["feats"] for out in queries]).detach()
            self.knn(train_features=feats, train_targets=labels)
        return torch.stack(losses).sum() / 2


def projector(width: int, hidden: int, out: int) -> nn.Sequential:
    """The official head: three linear layers, each followed by BatchNorm."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out),
        nn.BatchNorm1d(out),
    )


def _require_plain_first(cfg: DictConfig) -> None:
    blocks = OmegaConf.select(cfg, "augmentations")
    if blocks is None:  # a host that has no such section
        return
    first: AugmentationBlock = parse_augmentations(OmegaConf.to_container(blocks))[0]  # type: ignore[arg-type]
    steps = ("color_jitter", "grayscale", "gaussian_blur", "solarization", "equalization")
    turns = ("horizontal_flip", "vertical_flip", "quarter_turn")
    random = [s for s in (*steps, *turns) if getattr(first, s).prob > 0]
    random += ["rrc"] if first.rrc.enabled else []
    if random or first.num_crops != 1:
        what = f"has {', '.join(random)}" if random else f"gives {first.num_crops} views"
        raise UserError(
            f"mttv's first view is plain (normalised only) and its second strong; "
            f"augmentations[0] {what}. Take augmentations=small_plain_strong, "
            f"small_grey_plain_strong, land_plain_strong or imagenet_plain_strong, or set "
            f"method_kwargs.plain_first_view=false for another first view."
        )
