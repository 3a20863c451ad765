# SPDX-License-Identifier: MIT
"""GH over every method of the real solo-learn: two Lightning steps each, with GH's weight at 1."""

import warnings
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

import ltplugins
from ltplugins.methods.registry import COMPOSED
from tests.kit.hosts import NAMES, SOLO_HEADS, make_cfg, needs_solo
from tests.kit.runs import quiet_trainer

pytestmark = needs_solo

IMAGES, BATCH = 13, 4
VIT = {"backbone__name": "vit_tiny", "backbone__kwargs": {"img_size": 16, "patch_size": 8}}


class Views(torch.utils.data.Dataset[Any]):
    """Noise, ``large`` views of 16 pixels and ``small`` ones of 12; position i is index i."""

    def __init__(self, large: int = 2, small: int = 0) -> None:
        g = torch.Generator().manual_seed(0)
        self.views = [torch.randn(IMAGES, 3, 16, 16, generator=g) for _ in range(large)]
        self.views += [torch.randn(IMAGES, 3, 12, 12, generator=g) for _ in range(small)]

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, i: int) -> Any:
        return torch.tensor(i), [view[i] for view in self.views], torch.tensor(i % 3)


class Watch(pl.Callback):
    """What each step was fed and what GH logged for it."""

    def __init__(self) -> None:
        self.indexes: list[int] = []
        self.weights: list[float] = []
        self.losses: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, _: int):
        self.indexes += batch[0].tolist()
        self.weights.append(float(trainer.callback_metrics["train_gh_weight_step"]))
        self.losses += [outputs["loss"], trainer.callback_metrics["train_gh_loss_step"]]


def gh_cfg(base: str, **changes: Any) -> Any:
    gh = {"num_directions": 3, "warmup": 0, "ramp": 0, "num_iters": 10}
    cfg = make_cfg(base, scheduler__warmup_epochs=0, data__num_samples=IMAGES, **changes)
    cfg.method = f"gh_{base}"
    cfg.method_kwargs.gh = gh
    return cfg


def two_steps(cfg: Any, small: int = 0) -> tuple[Any, Watch]:
    """Build the wrapped method and train it for two steps on shuffled images."""
    from ltplugins.host import METHODS
    from ltplugins.host.solo import apply_fixes

    apply_fixes()
    ltplugins.register()
    torch.manual_seed(0)
    model, watch = METHODS[cfg.method](cfg), Watch()
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2, callbacks=[watch])
    loader = torch.utils.data.DataLoader(Views(small=small), batch_size=BATCH, shuffle=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader)
    return model, watch


def assert_gh_took_part(model: Any, watch: Watch) -> None:
    assert watch.weights == [1.0, 1.0]
    assert all(torch.isfinite(loss) for loss in watch.losses)
    assert len(set(watch.indexes)) == 2 * BATCH
    filled = torch.nonzero(model.gh_memory_filled).flatten().tolist()
    assert filled == sorted(watch.indexes)
    assert model.gh_memory.shape == (IMAGES, 3)
    empty = [i for i in range(IMAGES) if i not in filled]
    assert model.gh_memory[filled].abs().sum(dim=1).min() > 0
    assert model.gh_memory[empty].abs().sum() == 0


def test_every_method_but_mae_is_wrapped() -> None:
    from ltplugins.host import HOST, METHODS

    assert HOST.name == "solo"
    names = [n for n in ltplugins.register() if n.startswith("gh_")]
    ours = [n for n in names if not any(f"_{inner}_" in n for inner in {c.inner for c in COMPOSED})]
    assert set(ours) == {f"gh_{base}" for base in (*NAMES, *SOLO_HEADS)}
    assert len(ours) == 18
    assert "gh_mae" not in METHODS


@pytest.mark.parametrize("base", sorted([*NAMES, *SOLO_HEADS]))
def test_two_steps_over_every_method(base: str) -> None:
    model, watch = two_steps(gh_cfg(base))
    assert_gh_took_part(model, watch)
    assert model.cfg.method == base
    assert model.training_step.__func__.__module__ == "ltplugins.methods.gh"


def test_gradient_of_the_term_reaches_the_backbone() -> None:
    """With a weight of 0 and of 1 the backbones of the same start differ after two steps."""
    cfg = gh_cfg("simclr")
    with_term, _ = two_steps(cfg)
    cfg.method_kwargs.gh.weight = 1e-9
    without, _ = two_steps(cfg)
    a, b = (m.backbone.conv1.weight for m in (with_term, without))
    assert (a - b).abs().max() > 1e-5


@pytest.mark.parametrize("base", ["mocov3", "simclr"])
def test_vit(base: str) -> None:
    """solo-learn builds MoCo's own ViT where it sees ``mocov3``: the base must see its own name."""
    model, watch = two_steps(gh_cfg(base, **VIT))
    assert_gh_took_part(model, watch)
    assert ("MoCo" in type(model.backbone).__name__) == (base == "mocov3")


def test_multicrop() -> None:
    """GH takes the two large views; the small ones are the base's business."""
    model, watch = two_steps(gh_cfg("swav", data__num_small_crops=2), small=2)
    assert model.multicrop
    assert_gh_took_part(model, watch)


def test_without_num_samples_the_loader_tells_it() -> None:
    """As under solo-learn's own main, which knows no ``data.num_samples``."""
    cfg = gh_cfg("deepclusterv2")
    cfg.data.pop("num_samples")
    model, watch = two_steps(cfg)
    assert model.dataset_size == model.num_samples == IMAGES
    assert_gh_took_part(model, watch)
