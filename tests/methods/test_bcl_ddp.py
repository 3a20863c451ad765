# SPDX-License-Identifier: MIT
"""BCL on two gloo processes equals one on the joined batch: loss, gradient, memory, strengths."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.kit.hosts import SIZE
from tests.kit.ranks import join_ranks, run_ranks

WORLD, IMAGES = 2, 13
WHOLE = slice(0, 8)
# The last batch of an epoch need not be even.
SPLITS = {"even": (slice(0, 4), slice(4, 8)), "uneven": (slice(0, 3), slice(3, 8))}
STEPS = 3


class Data:
    """What BCL asks of the data module."""

    def boost_views(self, boost: Any) -> None: ...

    def set_strength(self, strengths: torch.Tensor) -> None:
        self.strengths = strengths.clone()


class Trainer:
    """What a step and the strengths ask of a trainer."""

    world_size, global_step = 1, 0

    def __init__(self) -> None:
        self.current_epoch = 0
        self.datamodule = Data()


def make() -> Any:
    """bcl_simclr with linear maps: BatchNorm would differ per rank by design."""
    import ltplugins
    from ltplugins.host import METHODS

    ltplugins.register()
    from tests.kit.hosts import make_cfg
    from tests.kit.tiny import BCL

    cfg = make_cfg("simclr", scheduler__warmup_epochs=0, data__num_samples=IMAGES)
    cfg.method = "bcl_simclr"
    cfg.method_kwargs.bcl = BCL
    torch.manual_seed(0)
    model: Any = METHODS["bcl_simclr"](cfg)
    model.backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, model.features_dim))
    model.projector = nn.Linear(model.features_dim, 8)
    model._trainer = Trainer()
    model.log_dict = lambda *args, **kwargs: None
    model.log = lambda *args, **kwargs: None
    return model.double()


def batch_of(number: int, rows: slice) -> list[Any]:
    """Eight rows, one of them an OOD image; image 4 is in every batch."""
    g = torch.Generator().manual_seed(number)
    views = [torch.randn(8, 3, SIZE, SIZE, generator=g).double() for _ in range(2)]
    indexes = torch.cat([torch.tensor([4]), torch.randperm(IMAGES, generator=g)[:8]])
    indexes = indexes[(indexes != 4) | (torch.arange(9) == 0)][:7]
    indexes = torch.cat([indexes, torch.tensor([IMAGES + 2])])
    return [indexes[rows], [view[rows] for view in views], indexes[rows] % 3]


def epoch(rows: slice) -> dict[str, Any]:
    """Loss and gradients of the last step, buffers and strengths after an epoch of three."""
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(STEPS):
            model.zero_grad()
            loss = model.training_step(batch_of(number, rows), number)
            loss.backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    model._trainer.current_epoch = 1
    model.on_train_epoch_start()
    return {
        "loss": loss.detach(),
        "grads": grads,
        "memory": model.bcl_memory,
        "filled": model.bcl_memory_filled,
        "strengths": model._trainer.datamodule.strengths,
    }


def on_rank(rank: int, world: int, folder: Path) -> None:
    join_ranks(rank, world, folder, seconds=30)
    results = {split: epoch(rows[rank]) for split, rows in SPLITS.items()}
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("bcl_ranks")
    run_ranks(on_rank, WORLD, folder, timeout=120)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(WORLD)]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return epoch(WHOLE)


def test_two_ranks_equal_one(ranks: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    mean = sum(rank["even"]["loss"] for rank in ranks) / WORLD
    torch.testing.assert_close(mean, whole["loss"], rtol=1e-6, atol=0)
    for key, expected in whole["grads"].items():
        mean = sum(rank["even"]["grads"][key] for rank in ranks) / WORLD
        torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-9, msg=key)


@pytest.mark.parametrize("split", SPLITS)
def test_memories_and_strengths_are_equal(
    split: str, ranks: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    assert whole["filled"].sum() >= 8
    assert whole["strengths"][whole["filled"]].std() > 0.1
    for rank in ranks:
        assert torch.equal(rank[split]["filled"], whole["filled"])
        for key in ("memory", "strengths"):
            torch.testing.assert_close(rank[split][key], whole[key], rtol=1e-6, atol=1e-7)
    # Not nearly equal: two ranks that disagree would augment one image in two ways.
    assert torch.equal(ranks[0][split]["strengths"], ranks[1][split]["strengths"])


def test_a_rank_alone_would_remember_something_else(whole: dict[str, Any]) -> None:
    """The negatives of the other rank count."""
    alone = epoch(SPLITS["even"][0])
    both = alone["filled"] & whole["filled"]
    assert both.any()
    assert not torch.allclose(alone["memory"][both], whole["memory"][both], rtol=1e-2)
