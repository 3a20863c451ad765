# SPDX-License-Identifier: MIT
"""MTTV and ICCL on the real solo-learn, and more views over every method of it: two steps each."""

import warnings
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

import ltplugins
from tests.kit.hosts import make_cfg, needs_solo
from tests.kit.runs import quiet_trainer

pytestmark = needs_solo

IMAGES, BATCH = 12, 4


class Views(torch.utils.data.Dataset[Any]):
    """Noise, ``count`` views of 16 pixels; position i is index i."""

    def __init__(self, count: int) -> None:
        g = torch.Generator().manual_seed(0)
        self.views = [torch.randn(IMAGES, 3, 16, 16, generator=g) for _ in range(count)]

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, i: int) -> Any:
        return torch.tensor(i), [view[i] for view in self.views], torch.tensor(i % 3)


def two_steps(cfg: Any, views: int = 2) -> tuple[Any, pl.Trainer]:
    """Build the method and train it for two steps."""
    from ltplugins.host import METHODS
    from ltplugins.host.solo import apply_fixes

    apply_fixes()
    ltplugins.register()
    torch.manual_seed(0)
    model = METHODS[cfg.method](cfg)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, torch.utils.data.DataLoader(Views(views), batch_size=BATCH))
    return model, trainer


def test_mttv() -> None:
    momentum = {"base_tau": 0.9, "final_tau": 0.9, "classifier": True}
    cfg = make_cfg("mttv", momentum=momentum, data__sampler="paired")
    cfg.data.num_classes = 5  # solo-learn's momentum classifier wants at least five
    model, trainer = two_steps(cfg)
    assert type(model).__mro__[3].__module__ == "solo.methods.base"
    for name in ("nce_loss", "class_loss", "momentum_class_loss"):
        assert torch.isfinite(trainer.callback_metrics[f"train_{name}_epoch"])
    online, twin = model.projector[0].weight, model.momentum_projector[0].weight
    assert not torch.equal(online, twin)
    assert not twin.requires_grad
    assert model.momentum_updater.cur_tau == 0.9


@pytest.mark.parametrize("views", [1, 2])
def test_iccl(views: int) -> None:
    cfg = make_cfg("iccl", data__sampler={"name": "two_branch"}, data__num_large_crops=views)
    model, trainer = two_steps(cfg, views)
    assert type(model).__mro__[3].__module__ == "solo.methods.base"
    for name in ("class_loss", "mixup_loss", "centroid_loss", "clean_centroid_loss", "acc1"):
        assert torch.isfinite(trainer.callback_metrics[f"train_{name}_epoch"])
    assert model.iccl_updates.sum() > 0
    x = torch.randn(2, 3, 16, 16)
    out = model.eval()(x)
    assert torch.equal(out["logits"], model.class_logits(out["feats"]))
    assert out["logits"].requires_grad


def mv_cfg(base: str, **changes: Any) -> Any:
    cfg = make_cfg(base, data__num_large_crops=3, data__num_samples=IMAGES, **changes)
    cfg.scheduler.warmup_epochs = 0
    cfg.method, cfg.method_kwargs.mv = f"mv_{base}", {"upper": 0.9}
    return cfg


def test_three_views_and_small_crops() -> None:
    cfg = mv_cfg("swav", data__num_small_crops=1)
    model, trainer = two_steps(cfg, views=4)
    assert model.multicrop
    assert torch.isfinite(trainer.callback_metrics["train_swav_loss_epoch"])
