# SPDX-License-Identifier: MIT
"""The end of a fine-tuning: when to stop, which weights are kept, a classifier balanced at last."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from ltplugins.downstream.finetune import FineTuner
from ltplugins.downstream.heads import (
    Refit,
    choose_tau,
    rescaled,
    retrained,
    tau_normalised,
)
from ltplugins.downstream.options import FinetuneConfig

FeaturesOf = Callable[[FineTuner, str], tuple[Tensor, Tensor]]
METRIC = "val_balanced_acc1"


class EarlyEnd(Callback):
    """Stop after ``patience`` epochs without a better balanced validation accuracy.

    The weights of the best epoch are those of the last checkpoint. Epochs of a probe do not count.
    What it knows is in every checkpoint, so that a killed run ends as the unbroken one.

    Attributes:
        stopped_epoch: the last one; 0 where nothing was stopped.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best, self.waited, self.stopped_epoch = -1.0, 0, 0
        self._weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was stopped, and killed before it wrote its results, stays stopped."""
        if self.stopped_epoch:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare, and remember the better weights."""
        assert isinstance(pl_module, FineTuner)
        is_before = pl_module.options.mode == "lp_ft" and pl_module.is_probing
        if trainer.sanity_checking or is_before:
            return
        score = float(trainer.callback_metrics[METRIC])
        if score > self.best:
            self.best, self.waited = score, 0
            state = pl_module.state_dict().items()
            self._weights = {key: value.detach().cpu().clone() for key, value in state}
            return
        self.waited += 1
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        if self.waited >= self.patience and not is_last:
            self.stopped_epoch = trainer.current_epoch
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the best weights, before the last checkpoint is written."""
        if self._weights and _is_over(trainer):
            pl_module.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Give the best epoch's score and weights."""
        kept = ("best", "waited", "stopped_epoch")
        return {**{key: getattr(self, key) for key in kept}, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._weights = state_dict.pop("weights")
        vars(self).update(state_dict)


class Rebalance(Callback):
    """Make the final classifier of heads ``crt``, ``tau`` and ``lws`` from the trained one.

    Args:
        features_of: Float[N D] and Int[N] of the images of a part, ``fit`` or ``held_out``.
        seed: of the draws.
    """

    def __init__(self, options: FinetuneConfig, features_of: FeaturesOf, seed: int) -> None:
        self.options, self.features_of = options, features_of
        batch = options.batch_size
        self.how = Refit(options.refit_epochs, options.refit_lr * batch / 256, batch, seed)
        self.tau: float | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Exchange the classifier, before the last checkpoint is written."""
        assert isinstance(pl_module, FineTuner)
        if not _is_over(trainer):
            return
        head = pl_module.classifier
        assert isinstance(head, nn.Linear)
        new = self._balanced(pl_module, head)
        head.load_state_dict(new.state_dict())

    def _balanced(self, module: FineTuner, head: nn.Linear) -> nn.Linear:
        part = "held_out" if self.options.head == "tau" else "fit"
        feats, targets = (x.to(head.weight.device) for x in self.features_of(module, part))
        if self.options.head == "tau":
            self.tau = choose_tau(head, feats, targets)
            return tau_normalised(head, self.tau)
        make = retrained if self.options.head == "crt" else rescaled
        return make(head, feats, targets, self.how)

    def state_dict(self) -> dict[str, Any]:
        """Give the tau that was chosen."""
        return {"tau": self.tau}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Know the tau of a run that was killed before it wrote its results."""
        self.tau = state_dict["tau"]


def ending(options: FinetuneConfig, features_of: FeaturesOf, seed: int) -> list[Callback]:
    """What these options need at the end, in its order."""
    found: list[Callback] = [] if options.patience is None else [EarlyEnd(options.patience)]
    if options.head in ("crt", "tau", "lws"):
        found.append(Rebalance(options, features_of, seed))
    return found


def _is_over(trainer: pl.Trainer) -> bool:
    """At the end of an epoch: whether it is the last; nothing but EarlyEnd stops this stage."""
    return trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
