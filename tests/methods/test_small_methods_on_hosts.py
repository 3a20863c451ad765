# SPDX-License-Identifier: MIT
"""TS and SDCLR over every method of the real solo-learn, and Focal-SimCLR on it: two steps each."""

import warnings
from typing import Any

import pytest
import torch

import ltplugins
from tests.kit.hosts import make_cfg, needs_solo
from tests.kit.runs import quiet_trainer

pytestmark = needs_solo

IMAGES, BATCH = 12, 4
VIT = {"backbone__name": "vit_tiny", "backbone__kwargs": {"img_size": 16, "patch_size": 8}}


class Views(torch.utils.data.Dataset[Any]):
    """Noise, two views of 16 pixels and ``small`` of 12; position i is index i."""

    def __init__(self, small: int = 0) -> None:
        g = torch.Generator().manual_seed(0)
        self.views = [torch.randn(IMAGES, 3, 16, 16, generator=g) for _ in range(2)]
        self.views += [torch.randn(IMAGES, 3, 12, 12, generator=g) for _ in range(small)]

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, i: int) -> Any:
        return torch.tensor(i), [view[i] for view in self.views], torch.tensor(i % 3)


def build(cfg: Any) -> Any:
    from ltplugins.host import METHODS
    from ltplugins.host.solo import apply_fixes

    apply_fixes()
    ltplugins.register()
    torch.manual_seed(0)
    return METHODS[cfg.method](cfg)


def two_steps(cfg: Any, small: int = 0) -> tuple[Any, dict[str, float]]:
    """Build the method, train it for two steps; it and the epoch's metrics."""
    model = build(cfg)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, torch.utils.data.DataLoader(Views(small), batch_size=BATCH))
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    losses = [v for k, v in metrics.items() if "loss" in k]
    assert losses
    assert all(v == v and abs(v) < 1e9 for v in losses), metrics
    return model, metrics


def wrapped(wrapper: str, base: str, block: dict[str, Any], **changes: Any) -> Any:
    cfg = make_cfg(base, scheduler__warmup_epochs=0, data__num_samples=IMAGES, **changes)
    cfg.optimizer.lr = 0.01  # VICReg diverges on noise at 0.1
    cfg.method, cfg.method_kwargs[wrapper] = f"{wrapper}_{base}", block
    return cfg


@pytest.mark.parametrize("base", ["simclr", "mocov3"])
def test_sdclr_with_a_vit(base: str) -> None:
    """Linear layers are pruned, LayerNorms are shared."""
    model, metrics = two_steps(wrapped("sdclr", base, {}, **VIT))
    assert metrics["train_sdclr_sparsity_epoch"] == pytest.approx(0.9, abs=1e-3)
    masks = dict(model.sdclr_masks.named_buffers())
    assert any("attn.qkv" in name for name in masks)
    assert not any(name.startswith("backbone") for name, _ in model.sdclr_norms.named_parameters())


def test_small_crops_go_through_the_full_network() -> None:
    cfg = wrapped("sdclr", "swav", {}, data__num_small_crops=1)
    model, _ = two_steps(cfg, small=1)
    assert int(model.backbone.bn1.num_batches_tracked) == 4  # view 1 and the small crop, twice
    assert int(model.sdclr_norms.backbone.bn1.num_batches_tracked) == 2


def test_a_stem_swapped_after_construction() -> None:
    """solo-learn chooses the stem by the data set's name; our stage overrules it."""
    from ltplugins.host.stem import apply_stem

    cfg = wrapped("sdclr", "simclr", {}, data__dataset="custom")
    model = build(cfg)
    apply_stem(model, True)
    other = build(cfg)
    apply_stem(other, True)
    model.setup("fit")
    assert model.sdclr_masks.backbone.conv1.weight.shape[-1] == 3
    other.load_state_dict(model.state_dict())


def test_focal() -> None:
    cfg = make_cfg("focal", scheduler__warmup_epochs=0)
    model, metrics = two_steps(cfg)
    assert type(model).__mro__[3].__module__ == "solo.methods.base"
    assert 0 < metrics["train_focal_weight_epoch"] <= 1
    simclr = build(make_cfg("simclr"))
    assert model.state_dict().keys() == simclr.state_dict().keys()
    assert all(p.grad is not None for p in model.projector.parameters())


def test_focal_at_gamma_zero_is_solos_simclr() -> None:
    cfg = make_cfg("focal")
    cfg.method_kwargs.gamma = 0.0
    focal, simclr = build(cfg), build(make_cfg("simclr"))
    simclr.load_state_dict(focal.state_dict())
    batch = torch.utils.data.default_collate([Views()[i] for i in range(6)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(focal.training_step(batch, 0), simclr.training_step(batch, 0))
