# SPDX-License-Identifier: MIT
"""SDCLR, the pruned self-competitor, as a wrapper over any host method that yields z.

Paper: Jiang et al., "Self-Damaging Contrastive Learning", ICML 2021,
https://arxiv.org/abs/2106.02990
Official code: https://github.com/VITA-Group/SDCLR at f1490fc

Per epoch: a mask of the backbone's largest weights. Per step: view 1 through the full network, view
2 through the same weights under the mask and with BatchNorms of its own -> the base's loss.

What is pruned: weights of convolutions and linear layers in the backbone, all in one ranking; the
official networks are ResNets, where these are the convolutions. Projector, biases and norms are
not. What each branch has of its own: weight, bias and running statistics of every BatchNorm in
backbone, projector and predictor, as officially. LayerNorms (ViT) are shared.

Known differences from the official code, beside those in ``losses/sdclr.py``:
- One backward pass through both branches; it is the sum of the two official ones.
- The pruned branch forwards once a step; officially twice, which moves its running statistics
  twice. They are read nowhere: validation and evaluation are of the full network, there as here.
- The last, short batch is dropped unless ``data.drop_last`` is false, as officially.
- The projector is the base's own; ``method_kwargs.proj_head: official`` takes the official one.
- Officially over SimCLR only. A momentum twin follows the full network and is not pruned; small
  crops go through the full network.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Below
from ltplugins.core.schema import Section
from ltplugins.core.transfer import scalar
from ltplugins.host.facts import facts_of
from ltplugins.losses.sdclr import magnitude_masks, sparsity
from ltplugins.methods.needs import Needs
from ltplugins.methods.wrapper import Wrapper

_PRUNED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class SDCLRConfig(Section):
    """The block ``method_kwargs.sdclr``."""

    prune_ratio: Annotated[float, Below(0, 1)] = 0.9  # official for CIFAR; 0.3 for ImageNet


class SDCLRMixin(Wrapper):
    """The base that follows in the MRO sees its second view through the pruned network.

    Logs train_sdclr_sparsity, the share of the ranked weights that is pruned. train_class_loss and
    train_acc1 are means over both branches; the online kNN learns from the full one alone.

    The mask (``sdclr_masks.*``) and the second BatchNorms (``sdclr_norms.*``) are in the checkpoint
    under the names that their originals have in the host; the host's own keys stay as they are.
    """

    wrapper_name = "sdclr"
    wrapper_config = SDCLRConfig
    needs = Needs(
        small_views=True,
        hint="Each branch has one: set num_crops of the augmentation blocks to 2 in all.",
    )
    official_head_layers = 3
    sdclr_masks: nn.Module
    sdclr_norms: nn.Module
    sdclr_epoch: Tensor  # Int[], the epoch that the mask is of; -1 = none yet, nothing is pruned

    def setup_wrapper(self, options: SDCLRConfig) -> None:
        """Copy the BatchNorms, allocate the mask. Called once the base is built."""
        self.sdclr = options
        if unfit := facts_of(self.base_name).one_branch:
            raise UserError(
                f"sdclr_{self.base_name}: {self.base_name} {unfit}. Take another base, such as "
                f"sdclr_simclr."
            )
        self.register_buffer("sdclr_epoch", torch.tensor(-1))
        self._sdclr_view, self._sdclr_sparsity = 0, 0.0
        self.sdclr_norms = nn.Module()
        for name, module in list(self.named_modules()):
            if isinstance(module, _BatchNorm) and not name.startswith("momentum_"):
                _insert(self.sdclr_norms, name, copy.deepcopy(module))
        self._allocate_masks()

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The base's groups and the pruned branch's BatchNorms."""
        norms = {"name": "sdclr_norms", "params": self.sdclr_norms.parameters()}
        return [*super().learnable_params, norms]

    def setup(self, stage: str) -> None:
        """Fit the mask to a stem that was swapped since, and tell DDP to leave it alone.

        Every rank computes the same mask from the same weights.
        """
        super().setup(stage)
        self._allocate_masks()
        masks = [f"sdclr_masks.{name}" for name, _ in self.sdclr_masks.named_buffers()]
        ignored = set(getattr(self, "_ddp_params_and_buffers_to_ignore", ()))
        self._ddp_params_and_buffers_to_ignore = sorted(ignored | set(masks))

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the state, after fitting the masks to a stem that may have been swapped."""
        self._allocate_masks()
        return super().load_state_dict(*args, **kwargs)

    def on_train_epoch_start(self) -> None:
        """Renew the mask; not in an epoch that a checkpoint has been taken in the middle of."""
        super().on_train_epoch_start()
        names, masks = zip(*self.sdclr_masks.named_buffers(), strict=True)
        if int(self.sdclr_epoch) != self.current_epoch:
            weights = [self.get_parameter(name) for name in names]
            for mask, new in zip(
                masks, magnitude_masks(weights, self.sdclr.prune_ratio), strict=True
            ):
                mask.copy_(new)
            self.sdclr_epoch.fill_(self.current_epoch)
        self._sdclr_sparsity = sparsity(masks)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Any:
        """The base's step, its second view pruned.

        Args:
            batch: ``[indexes (N,), [2 large views, then small ones, (N, 3, H, W)], targets (N,)]``.
        """
        self._sdclr_view = 0
        knn_eval, self.knn_eval = self.knn_eval, False
        try:
            loss, outs = self.collect_views(super().training_step, batch, batch_idx)
        finally:
            self.knn_eval = knn_eval
        targets = batch[2]
        if knn_eval:  # its test images go through the full network
            self.knn(train_features=outs[0]["feats"].detach(), train_targets=targets)
        self.log(
            "train_sdclr_sparsity",
            scalar(self._sdclr_sparsity, targets.device),
            on_epoch=True,
            batch_size=len(targets),
            sync_dist=False,
        )
        return loss

    def base_training_step(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        """The base's, for the second large view through the pruned network."""
        self._sdclr_view += 1
        forward = super().base_training_step
        if self._sdclr_view != 2:
            return forward(X, targets)
        tensors = {f"method.{name}": tensor for name, tensor in self._pruned_tensors()}
        return functional_call(_Branch(self, forward), tensors, (X, targets), tie_weights=False)

    def _pruned_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What the pruned branch has in place of the full one's tensors, by the host's names."""
        for name, mask in self.sdclr_masks.named_buffers():
            yield name, self.get_parameter(name) * mask
        yield from self.sdclr_norms.named_parameters()
        yield from self.sdclr_norms.named_buffers()

    def _allocate_masks(self) -> None:
        """(Re)allocate the mask, keeping all, where it does not fit the backbone's weights."""
        weights = {
            f"backbone.{name}.weight": module.weight
            for name, module in self.backbone.named_modules()
            if isinstance(module, _PRUNED)
        }
        masks = dict(self.sdclr_masks.named_buffers()) if hasattr(self, "sdclr_masks") else {}
        if {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in masks.items()}:
            return
        self.sdclr_masks = nn.Module()
        for name, weight in weights.items():
            _insert(self.sdclr_masks, name, torch.ones_like(weight, dtype=torch.bool))


class _Branch(nn.Module):
    """Makes a bound method a module's forward, whose tensors ``functional_call`` can exchange."""

    def __init__(self, method: nn.Module, run: Callable[..., dict[str, Any]]) -> None:
        super().__init__()
        self.method, self.run = method, run

    def forward(self, *args: Any) -> dict[str, Any]:
        return self.run(*args)


def _insert(root: nn.Module, name: str, leaf: nn.Module | Tensor) -> None:
    """Put a module or a buffer under a dotted name, making the modules on the way."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(leaf, Tensor):
        root.register_buffer(last, leaf)
    else:
        root.add_module(last, leaf)
