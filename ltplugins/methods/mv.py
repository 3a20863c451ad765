# SPDX-License-Identifier: MIT
"""More than two large views for any host method, contrastive or not: ``mv_<base>``.

Paper: "Maximally Useful and Minimally Redundant: The Key to Self Supervised Learning for Imbalanced
Data", v1 2025 ("more than two views"), https://arxiv.org/abs/2509.08469
Official code: https://github.com/anonymouspersoncscv/MTTV at 247efd5

This wrapper is our generalisation of the paper's claim that more views help over frameworks. It is
in neither paper nor code, which have one method of two images (``mttv.py``) and no other framework.

Per step: each of the V views is forwarded once -> the base's own two-view step on each of the
V (V - 1) / 2 pairs of views, from those outputs -> the mean of the losses. With V = 2 and no
filter it is the base, bit for bit. Small crops take part in every pair, as the base uses them.

A base's state (MoCo's queue, DINO's centre) is put back before each further pair: it moves on by
one step, and no pair meets its own images' keys among its negatives.

Filter, off by default: an image whose two views have |cos(z, z')| outside [lower, upper] gets no
gradient from that pair. Unlike in ``mttv``, negatives are not filtered: they are inside the base.

Legend: N batch, V views, D embedding dim.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ltplugins.core.ranges import AtLeast, Below, UpTo
from ltplugins.core.schema import Section
from ltplugins.losses.mv import detach_rows, positive_in_band
from ltplugins.methods.needs import Needs
from ltplugins.methods.wrapper import Wrapper


@dataclass(frozen=True)
class MVConfig(Section):
    """The block ``method_kwargs.mv``."""

    # V; null: as many large views as the augmentations give.
    views: Annotated[int, AtLeast(2)] | None = None
    lower: Annotated[float, Below(0, 1)] = 0.0  # 0 and 1: no filter
    upper: Annotated[float, UpTo(0, 1)] = 1.0

    def refusals(self) -> Iterator[tuple[str, str]]:
        """The band is not empty."""
        if not self.lower < self.upper:
            yield "lower", f"a number below upper ({self.upper:g})"


class MVMixin(Wrapper):
    """Runs the two-view step of the base that follows in the MRO on every pair of views.

    The base's metrics are logged once a pair: their epoch means are over all pairs. With a filter,
    train_mv_kept is the share of images that pass it. The online kNN sees the first two views.
    """

    wrapper_name = "mv"
    wrapper_config = MVConfig
    needs = Needs(
        more_views=True,
        small_views=True,
        hint="Set num_crops of the augmentation blocks to as many in all, or "
        "method_kwargs.mv.views to 2 or more.",
    )

    @classmethod
    def needs_under(cls, cfg: DictConfig) -> Needs:
        """Ask for as many views as ``method_kwargs.mv.views`` says, where it says a number."""
        views = OmegaConf.select(cfg, "method_kwargs.mv.views")
        return cls.needs if views is None else replace(cls.needs, views=views, more_views=False)

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        self.mv_views = int(cfg.data.num_large_crops)

    def _split_config(self, cfg: DictConfig) -> tuple[DictConfig, Any]:
        base_cfg, block = super()._split_config(cfg)
        base_cfg.data.num_large_crops = 2  # the base's step sees two views at a time
        return base_cfg, block

    def setup_wrapper(self, options: MVConfig) -> None:
        """Remember the options."""
        self.mv = options
        self._mv_filters = options.lower > 0 or options.upper < 1
        self._mv_keep: Tensor | None = None
        # What each view's forward returned, by the identity of its tensor, within a step.
        self._mv_outputs: dict[tuple[str, int], dict[str, Any]] = {}

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """The mean of the base's loss over all pairs of large views.

        Args:
            batch: ``[indexes (N,), [V large views, then small ones, (N, 3, H, W)], targets (N,)]``.
        """
        indexes, views, targets = batch
        large, small = views[: self.mv_views], views[self.mv_views :]
        assert len(large) == self.mv_views, f"got {len(large)} large views, not {self.mv_views}"
        knn_eval = self.knn_eval
        try:
            self._forward_views(large, small, targets)
            buffers = _Buffers(self)
            losses, kept = [], []
            for number, (i, j) in enumerate(combinations(range(self.mv_views), 2)):
                if number > 0:
                    buffers.put_back()
                    self.knn_eval = False
                kept.append(self._select(large[i], large[j]))
                pair = [indexes, [large[i], large[j], *small], targets]
                losses.append(super().training_step(pair, batch_idx))
        finally:
            self.knn_eval, self._mv_keep, self._views = knn_eval, None, []
            self._mv_outputs.clear()
        if self._mv_filters:
            share = torch.stack(kept).float().mean()
            self.log("train_mv_kept", share, on_epoch=True, sync_dist=True, batch_size=len(targets))
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def base_training_step(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        """What the view's one forward returned, without gradient for the images filtered out."""
        out = self._once("large", X, super().base_training_step, targets)
        keep = self._mv_keep
        if keep is None:
            return out
        # The online classifier learns from every image: its loss is no business of the filter.
        return {k: v if k == "logits" else detach_rows(v, keep) for k, v in out.items()}

    def multicrop_forward(self, X: Tensor) -> dict[str, Any]:
        """Forward each small crop once, however many pairs of large views it takes part in."""
        return self._once("small", X, super().multicrop_forward)

    def _shared_step_momentum(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        """As the momentum base's, once for each view; other bases never call it."""
        return self._once("twin", X, super()._shared_step_momentum, targets)  # type: ignore[misc]

    def _forward_views(self, large: list[Tensor], small: list[Tensor], targets: Tensor) -> None:
        """Forward every view, in the order in which the base's own step would."""
        self._mv_outputs.clear()
        for x in large:
            self.base_training_step(x, targets)
        for x in small:
            self.multicrop_forward(x)
        if hasattr(self, "momentum_backbone"):
            for x in large:
                self._shared_step_momentum(x, targets)

    def _once(self, kind: str, x: Tensor, forward: Callable[..., Any], *args: Any) -> Any:
        key = (kind, id(x))
        if key not in self._mv_outputs:
            self._mv_outputs[key] = forward(x, *args)
        return dict(self._mv_outputs[key])

    def _select(self, first: Tensor, second: Tensor) -> Tensor:
        """Choose which images of this pair of views are learnt from: Bool[N]."""
        z_1, z_2 = (self._mv_outputs["large", id(x)]["z"] for x in (first, second))
        keep = positive_in_band(z_1, z_2, lower=self.mv.lower, upper=self.mv.upper)
        self._mv_keep = keep if self._mv_filters else None
        return keep


class _Buffers:
    """The buffers of a module as they are now, to be put back where they have changed."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.saved = {n: (b, b._version, b.clone()) for n, b in module.named_buffers()}

    @torch.no_grad()
    def put_back(self) -> None:
        """Give every changed buffer its saved value, in place: DDP and checkpoints hold on to it.

        A base overwrites its state itself after using it, so no graph depends on the old value.
        """
        for name, buffer in self.module.named_buffers():
            if name not in self.saved:  # made since then, on first use
                continue
            original, version, value = self.saved[name]
            if buffer is not original or buffer._version != version:
                buffer.copy_(value)
