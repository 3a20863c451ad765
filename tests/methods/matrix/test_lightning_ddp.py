# SPDX-License-Identifier: MIT
"""Under Lightning's DDP, in two gloo processes: what it leaves alone, and what stays equal."""

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.kit.cases import over_simclr, wrappers_of
from tests.kit.hosts import on_the_stand_in
from tests.kit.ranks import as_launched, join_ranks, run_ranks
from tests.kit.runs import build, quiet_trainer
from tests.kit.tiny import calm_config

WORLD = 2
NAMES = [*over_simclr(), "sdclr_byol"]
# Memories are equal on every rank without a broadcast, masks are drawn from equal weights.
IGNORED = {
    "gh": ("gh_memory", "gh_memory_filled"),
    "colt": ("colt_memory", "colt_memory_filled"),
    "bcl": ("bcl_memory", "bcl_memory_filled"),
    "gml": tuple(f"gml_queue.{key}" for key in ("feats", "filled", "indexes", "targets")),
}
pytestmark = [on_the_stand_in, pytest.mark.xdist_group("ranks")]


class Look(pl.Callback):
    """What DDP leaves alone, and whether GH's memory is among what it broadcasts."""

    def __init__(self, rank: int) -> None:
        self.rank, self.seen = rank, {}

    def on_train_start(self, trainer: Any, module: Any) -> None:
        ddp = trainer.strategy.model
        self.seen["ignored"] = sorted(ddp.parameters_to_ignore)
        self.seen["broadcast"] = {
            name
            for name, value in module.named_buffers()
            if any(value is other for other in ddp.modules_buffers)
        }
        if hasattr(module, "gh_etf"):
            module.gh_etf.mul_(1 + self.rank)

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        if hasattr(module, "gh_etf"):
            self.seen["etf"] = module.gh_etf.norm().item()


def train(name: str, rank: int, folder: Path) -> dict[str, Any]:
    """Two epochs of two steps with real BatchNorms."""
    folder.mkdir(exist_ok=True)
    model, data = build(calm_config(folder, name, optimizer__batch_size=4))
    look = Look(rank)
    trainer = quiet_trainer(
        devices=WORLD,
        strategy="ddp",
        max_epochs=2,
        limit_train_batches=2,
        callbacks=[look],
        default_root_dir=folder,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, datamodule=data)
    return {**look.seen, "state": model.state_dict()}


def on_rank(rank: int, world: int, folder: Path) -> dict[str, Any]:
    join_ranks(rank, world, folder)
    as_launched(rank, world)
    results = {name: train(name, rank, folder / str(rank)) for name in NAMES}
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ddp")
    return run_ranks(on_rank, WORLD, folder)


@pytest.mark.parametrize("name", NAMES)
def test_ranks_stay_equal_and_memories_are_left_alone(name: str, ranks: list[Any]) -> None:
    """No parameter is without gradient, and nobody sends memories or masks around."""
    one, two = (rank[name] for rank in ranks)
    state = one["state"]
    assert state.keys() == two["state"].keys()
    for key, value in state.items():
        # BatchNorms are of each rank's own batch; the directions of GH were made to differ.
        if "running_" not in key and key != "gh_etf":
            assert torch.equal(value, two["state"][key]), key
    parts = wrappers_of(name) or [name]
    expected = {key for part in parts for key in IGNORED.get(part, ())}
    if "sdclr" in parts:
        expected |= {key for key in state if key.startswith("sdclr_masks.")}
    assert set(one["ignored"]) >= expected
    assert not expected & one["broadcast"]
    assert not any(key.startswith(("backbone", "class_counts")) for key in one["ignored"])


def test_the_watch_can_see_a_broadcast(ranks: list[Any]) -> None:
    """GH's directions, made to differ at the start, are those of rank 0 after a step."""
    seen = [rank["gh_simclr"] for rank in ranks]
    assert {"gh_prior", "gh_etf"} <= seen[0]["broadcast"]
    assert seen[0]["etf"] == pytest.approx(seen[1]["etf"])


def test_sdclrs_second_branch_learns(ranks: list[Any]) -> None:
    state = ranks[0]["sdclr_byol"]["state"]
    masks = [value for key, value in state.items() if key.startswith("sdclr_masks.")]
    kept = sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    assert 1 - kept == pytest.approx(0.6, abs=0.01)
    norm = state["sdclr_norms.backbone.conv1.1.weight"]
    assert not torch.equal(norm, torch.ones_like(norm))
