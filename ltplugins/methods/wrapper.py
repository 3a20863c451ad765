# SPDX-License-Identifier: MIT
"""What every wrapper shares: its own config block, the views' outputs, state per training image.

A wrapper is a mixin before a host method in the MRO. It never rewrites the base: it lets the
base take its step, keeps what ``base_training_step`` returned for each view, and adds a term.
Wrappers compose (``gh_colt_simclr``): each has its own block, buffers and term.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.host.facts import facts_of
from ltplugins.host.head import apply_head
from ltplugins.methods.needs import Needs, check_method_needs
from ltplugins.methods.parts.joint_views import JointForward

if TYPE_CHECKING:
    from ltplugins.host.builtin import BaseMethod as _Host
else:
    _Host = object  # any host's method follows in the MRO


class Wrapper(_Host):
    """Base of the mixins. A subclass sets the class variables and :meth:`setup_wrapper`."""

    base_name: ClassVar[str]
    wrapper_name: ClassVar[str]
    wrapper_config: ClassVar[type]
    needs: ClassVar[Needs] = Needs(more_views=True, small_views=True)
    # Buffers that DDP must not broadcast: every rank computes the same rows from the same
    # gathered batch, and N x K floats a step would dwarf the gradients.
    per_sample_prefixes: ClassVar[tuple[str, ...]] = ("_memory",)

    def __init__(self, cfg: DictConfig) -> None:
        base_cfg, blocks = self._split_config(cfg)
        options: list[Any] = [
            parse(w.wrapper_config, block, f"method_kwargs.{w.wrapper_name}")
            for w, block in zip(self.wrappers(), blocks, strict=True)
        ]
        check_method_needs(cfg, type(self))
        self._check_joint_views(options)
        super().__init__(base_cfg)
        apply_head(self, base_cfg, self.base_name)
        num_samples = OmegaConf.select(cfg, "data.num_samples")
        self.num_samples: int | None = None if num_samples is None else int(num_samples)
        self.allocated_rows = self.num_samples or 0  # of the per-sample state, over all ranks
        self._views: list[dict[str, Any]] | None = None
        self._joint: JointForward | None = None
        self.joint_views = any(getattr(own, "joint_views", False) for own in options)
        for wrapper, own in zip(self.wrappers(), options, strict=True):
            wrapper.setup_wrapper(self, own)
        # A host's main reads the defaults that the base put into its config; hand them on.
        with open_dict(cfg):
            cfg.update({k: v for k, v in base_cfg.items() if k not in cfg})

    @classmethod
    def wrappers(cls) -> list[type["Wrapper"]]:
        """The mixins over the base, the outermost first."""
        return [c for c in cls.__mro__ if issubclass(c, Wrapper) and "wrapper_name" in vars(c)]

    @classmethod
    def needs_under(cls, cfg: DictConfig) -> Needs:
        """Say what the wrapper needs of the data under this config."""
        return cls.needs

    def _split_config(self, cfg: DictConfig) -> tuple[DictConfig, list[Any]]:
        """The config as the base knows it (its own name, no block of ours), and our blocks."""
        base_cfg = cfg.copy()
        OmegaConf.set_struct(base_cfg, False)
        with open_dict(base_cfg):
            base_cfg.method = self.base_name
            kwargs = base_cfg.get("method_kwargs")
            names = [w.wrapper_name for w in self.wrappers()]
            blocks = [kwargs.pop(name, None) if kwargs else None for name in names]
        return base_cfg, [None if b is None else OmegaConf.to_container(b) for b in blocks]

    def _check_joint_views(self, options: list[Any]) -> None:
        """Refuse one forward pass of all views where a wrapper gives each one of its own."""
        names = [w.wrapper_name for w in self.wrappers()]
        own_pass = [name for name in names if name in ("sdclr", "mv")]
        for name, own in zip(names, options, strict=True):
            if getattr(own, "joint_views", False) and own_pass:
                raise UserError(
                    f"method_kwargs.{name}.joint_views: expected false over {own_pass[0]}, which "
                    f"forwards each view by itself; got true. Set it to false."
                )

    def setup_wrapper(self, options: Any) -> None:
        """Allocate what the wrapper needs; the base is built, ``self.num_samples`` may be None."""
        raise NotImplementedError

    def allocate_per_sample(self, num_samples: int) -> None:
        """(Re)allocate the state per training image; wrappers without one leave this."""

    def embedding_dim(self) -> int:
        """Dimension of z, from the config.

        Raises:
            UserError: the config does not name it.
        """
        key = facts_of(self.base_name).width_key
        dim = OmegaConf.select(self.cfg, f"method_kwargs.{key}")
        if dim is None:
            raise UserError(
                f"{self.wrapper_name}_{self.base_name}: method_kwargs.{key} is missing; the "
                f"wrapper needs it to know the dimension of z."
            )
        return int(dim)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Any:
        """The base's step, its large views in one forward pass where ``joint_views`` says so."""
        if self.joint_views:
            self._joint = JointForward(batch[1][: self.num_large_crops])
        try:
            return super().training_step(batch, batch_idx)
        finally:
            self._joint = None

    def base_training_step(self, X: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        """Keep what the base returned for this view."""
        forward = super().base_training_step
        out = forward(X, targets) if self._joint is None else self._joint.next(forward, targets)
        if self._views is not None:
            self._views.append(out)
        return out

    def collect_views(
        self, step: Callable[..., Any], batch: Sequence[Any], batch_idx: int
    ) -> tuple[Any, list[dict[str, Any]]]:
        """Run the base's step; return its loss and the outputs of its large views, in order."""
        views, self._views = self._views, []
        loss = step(batch, batch_idx)
        outs = self._views
        # A wrapper around this one is collecting too.
        self._views = None if views is None else views + outs
        if not outs or "z" not in outs[0]:
            raise UserError(
                f"{self.wrapper_name}_{self.base_name}: the base returned no z for its views."
            )
        return loss, outs

    def on_train_start(self) -> None:
        """Under a host's own main the number of images is known only here."""
        super().on_train_start()
        if self.num_samples is None:
            loader: Any = self.trainer.train_dataloader
            self.num_samples = len(loader.dataset)
            if not self._per_sample_rows():
                self._allocate(self.num_samples)
        if self._per_sample_rows() not in (None, self.num_samples):
            raise UserError(
                f"the checkpoint remembers {self._per_sample_rows()} training images, this run has "
                f"{self.num_samples}. Resume with the same data, or start a new run."
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the per-image buffers the checkpoint's size before they are loaded."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        rows = [len(v) for k, v in state.items() if self._is_per_sample(k)]
        if rows and self._per_sample_rows() != rows[0]:
            self._allocate(rows[0])

    def setup(self, stage: str) -> None:
        """Tell DDP which buffers to leave alone."""
        super().setup(stage)
        names = [k for k, _ in self.named_buffers() if self._is_per_sample(k)]
        ignored = set(getattr(self, "_ddp_params_and_buffers_to_ignore", ()))
        self._ddp_params_and_buffers_to_ignore = sorted(ignored | set(names))

    def _allocate(self, num_samples: int) -> None:
        self.allocated_rows = num_samples
        for wrapper in self.wrappers():
            wrapper.allocate_per_sample(self, num_samples)

    def _is_per_sample(self, name: str) -> bool:
        return any(
            name.startswith(f"{w.wrapper_name}{p}")
            for w in self.wrappers()
            for p in w.per_sample_prefixes
        )

    def _per_sample_rows(self) -> int | None:
        has_state = any(self._is_per_sample(name) for name, _ in self.named_buffers())
        return self.allocated_rows if has_state else None
