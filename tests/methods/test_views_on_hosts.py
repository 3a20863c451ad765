# SPDX-License-Identifier: MIT
"""MTTV on the real solo-learn: its own momentum base, its EMA, two steps."""

import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from host_helpers import make_cfg, needs_solo

import ltplugins

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
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
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
