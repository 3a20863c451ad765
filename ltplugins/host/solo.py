# SPDX-License-Identifier: MIT
"""Repairs of solo-learn 1.0.6 for when it is the host. ``host.prepare`` calls ``apply_fixes``.

Seven of its defects and limits break promises that we make on every host:

- ``WeightedKNNClassifier`` passes ``compute_on_step``, which torchmetrics >= 1 refuses, so that
  ``knn_eval.enabled`` crashes at construction; and it sizes its vote by the classes present in the
  test split, so that a subset crashes. Ours takes its place.
- ``MomentumUpdater.cur_tau`` is not saved, and the step counter restarts at 0, so that a resumed
  run differs from the unbroken one.
- Schedules of methods with a ``static_lr`` group (SimSiam, NNSiam) hang a function on the scheduler
  instance, which goes into the checkpoint: it then does not open under ``weights_only``, torch's
  default since 2.6, and where it opens it calls into the old run's optimizer.
- A checkpoint is loaded into the stem that the data set's *name* asks for, whichever it was trained
  with, so that ``main_knn.py`` refuses one of a small stem. The stem follows the checkpoint.
- DeepClusterV2 has no clusters in its first epoch, and its mean over no sample is NaN: the gradient
  is zero, but the logged loss cannot be told from a run that diverged.
- It knows some twenty backbones. Any timm name works on the stand-in, the packaged config's among
  them, so it does here.
- The top-5 accuracy of the momentum classifier, and of main_linear.py, crashes on fewer than five
  classes; the online one's is the top-C accuracy of C classes, and so are these.
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import timm
from torch import Tensor, nn

from ltplugins.host.builtin.backbones import build_backbone, unknown_backbone
from ltplugins.host.stem import apply_stem, has_stem
from ltplugins.host.twins import load_tau, save_momentum

logger = logging.getLogger(__name__)


def apply_fixes() -> list[str]:
    """Repair the imported solo-learn; twice is the same as once.

    Returns:
        What is repaired, in words.

    Raises:
        ImportError: there is no solo-learn to repair.
    """
    from ltplugins.metrics.online_knn import OnlineKNN

    base = importlib.import_module("solo.methods.base")
    # The second is where main_knn.py takes it from.
    for module in (base, importlib.import_module("solo.utils.knn")):
        module.WeightedKNNClassifier = OnlineKNN  # type: ignore[attr-defined]
    make_resumable()
    _fit_stem_to_checkpoints(base.BaseMethod)
    _define_first_deepcluster_loss()
    base.BaseMethod._BACKBONES = _Backbones(base.BaseMethod._BACKBONES)
    for module in (base, importlib.import_module("solo.methods.linear")):
        _clip_top_k(module)
    fixes = [
        "online kNN replaced",
        "momentum tau saved",
        "static_lr schedules resumable",
        "stem taken from the checkpoint",
        "DeepClusterV2's first loss defined",
        "timm's backbones added",
        "top-5 accuracy of few classes",
    ]
    logger.info("solo-learn is repaired: %s (why: ltplugins/host/solo.py)", ", ".join(fixes))
    return fixes


def make_resumable() -> None:
    """The part of ``apply_fixes`` that concerns checkpoints; idempotent."""
    base: Any = importlib.import_module("solo.methods.base")
    _save_momentum_state(base.BaseMomentumMethod)
    for name in ("LinearWarmupCosineAnnealingLR", "MultiStepLR"):
        setattr(base, name, _without_functions(getattr(base, name)))


def _fit_stem_to_checkpoints(cls: Any) -> None:
    """Before weights are loaded, give the model the stem that they are of; idempotent."""
    if getattr(cls, "_ltplugins_fits_stem", False):
        return
    load = cls.on_load_checkpoint

    def on_load_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        load(self, checkpoint)
        weight = checkpoint["state_dict"].get("backbone.conv1.weight")
        if weight is not None and has_stem(self.backbone):
            apply_stem(self, small=weight.shape[-1] == 3)

    cls.on_load_checkpoint = on_load_checkpoint
    cls._ltplugins_fits_stem = True


def _define_first_deepcluster_loss() -> None:
    """Let DeepClusterV2's loss be 0, not NaN, while no image has a cluster; idempotent."""
    module: Any = importlib.import_module("solo.methods.deepclusterv2")
    loss = module.deepclusterv2_loss_func
    if getattr(loss, "_ltplugins_defined", False):
        return

    def deepclusterv2_loss_func(outputs: Tensor, assignments: Tensor, *args: Any) -> Tensor:
        if (assignments >= 0).any():
            return loss(outputs, assignments, *args)
        return outputs.sum() * 0.0

    deepclusterv2_loss_func._ltplugins_defined = True  # type: ignore[attr-defined]
    module.deepclusterv2_loss_func = deepclusterv2_loss_func


class _Backbones(dict[str, Callable[..., nn.Module]]):
    """solo-learn's constructors by name, and timm's where it has none of that name."""

    def __contains__(self, name: object) -> bool:
        """Whether there is such a backbone; it is an assertion in solo-learn, a sentence here.

        Raises:
            UserError: there is none, with the nearest that there is.
        """
        if super().__contains__(name) or timm.is_model(str(name)):
            return True
        raise unknown_backbone(str(name), [*self])

    def __missing__(self, name: str) -> Callable[..., nn.Module]:
        return partial(_timm_backbone, name)


def _timm_backbone(name: str, method: str, **kwargs: Any) -> nn.Module:
    """A timm model without its head, its width where solo-learn looks for it."""
    model, width = build_backbone(name, kwargs)
    setattr(model, "inplanes" if name.startswith("resnet") else "num_features", width)
    return model


def _clip_top_k(module: Any) -> None:
    """Let an accuracy over more classes than there are be that over all of them; idempotent."""
    accuracy = module.accuracy_at_k
    if getattr(accuracy, "_ltplugins_clips", False):
        return

    def accuracy_at_k(outputs: Tensor, targets: Tensor, top_k: Sequence[int] = (1, 5)) -> Any:
        return accuracy(outputs, targets, [min(k, outputs.shape[1]) for k in top_k])

    accuracy_at_k._ltplugins_clips = True  # type: ignore[attr-defined]
    module.accuracy_at_k = accuracy_at_k


def _without_functions(scheduler: Any) -> type:
    """Return the scheduler class with plain values only in its ``state_dict``."""
    if getattr(scheduler, "_ltplugins_plain_state", False):
        return scheduler

    class PlainState(scheduler):
        _ltplugins_plain_state = True

        def state_dict(self) -> dict[str, Any]:
            return {key: value for key, value in super().state_dict().items() if key != "get_lr"}

    PlainState.__name__ = scheduler.__name__
    return PlainState


def _save_momentum_state(cls: Any) -> None:
    if getattr(cls, "_ltplugins_saves_tau", False):
        return
    save, load, start = cls.on_save_checkpoint, cls.on_load_checkpoint, cls.on_train_start

    def on_save_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        save(self, checkpoint)
        save_momentum(self, checkpoint)

    def on_load_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        load(self, checkpoint)
        load_tau(self, checkpoint)

    def on_train_start(self: Any) -> None:
        start(self)
        self.last_step = self.trainer.global_step

    cls.on_save_checkpoint = on_save_checkpoint
    cls.on_load_checkpoint = on_load_checkpoint
    cls.on_train_start = on_train_start
    cls._ltplugins_saves_tau = True
