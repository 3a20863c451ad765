# SPDX-License-Identifier: MIT
"""Two gloo processes equal one process on the joined batch, in loss and gradient, every method.

What DDP does is done by hand: the ranks' gradients of the shared parameters are averaged.
"""

import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ltplugins.core import distributed
from tests.kit.hosts import NAMES, SIZE, make_batch, tiny_cfg
from tests.kit.ranks import die_on_rank_1, hang_on_rank_1, join_ranks, run_ranks

WORLD, PER_RANK = 2, 4


def linear_model(name: str) -> Any:
    """The method with linear maps for networks: BatchNorm would differ per rank by design."""
    from ltplugins.host.builtin import METHODS

    torch.manual_seed(0)
    model: Any = METHODS[name](tiny_cfg(name))
    width = model.features_dim
    for part in ("backbone", "momentum_backbone"):
        if hasattr(model, part):
            setattr(model, part, nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, width)))
    for part in ("projector", "momentum_projector"):
        if hasattr(model, part):
            setattr(model, part, nn.Linear(width, 8))
    if model.predictor is not None:
        model.predictor = nn.Linear(8, 8)
    return model.double()


def loss_and_gradients(name: str, batch: list[Any]) -> dict[str, Any]:
    model = linear_model(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = model.training_step(batch, 0)
    loss.backward()
    grads = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "grads": grads, "buffers": dict(model.named_buffers())}


def shard(batch: list[Any], rows: slice) -> list[Any]:
    indexes, views, targets = batch
    return [indexes[rows], [view[rows] for view in views], targets[rows]]


def joined_batch() -> list[Any]:
    indexes, views, targets = make_batch(WORLD * PER_RANK)
    targets[[3, 7]] = -1  # one on each rank: the class loss is a mean over labelled rows
    return [indexes, [view.double() for view in views], targets]


def uneven_gather(rank: int) -> dict[str, Any]:
    """3 rows on rank 0, 1 row on rank 1; every rank weighs the joined rows by its rank + 1."""
    sizes = (3, 1)
    rows = torch.arange(4.0).view(4, 1).split(sizes)[rank].clone().requires_grad_()
    joined, offset = distributed.gather_with_offset(rows)
    (joined * joined * (rank + 1)).sum().backward()
    return {"joined": joined.detach(), "offset": offset, "grad": rows.grad}


def on_rank(rank: int, world: int, folder: Path) -> None:
    join_ranks(rank, world, folder, seconds=30)
    mine = slice(rank * PER_RANK, (rank + 1) * PER_RANK)
    results: dict[str, Any] = {}
    for name in NAMES:
        results[name] = loss_and_gradients(name, shard(joined_batch(), mine))
    results["uneven"] = uneven_gather(rank)
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(on_rank, WORLD, folder, timeout=90)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_equal_one(name: str, ranks: list[dict[str, Any]]) -> None:
    whole = loss_and_gradients(name, joined_batch())
    parts = [rank[name] for rank in ranks]
    mean = sum(part["loss"] for part in parts) / WORLD
    torch.testing.assert_close(mean, whole["loss"], rtol=1e-10, atol=1e-12)
    assert all(set(part["grads"]) == set(whole["grads"]) for part in parts)
    for key, expected in whole["grads"].items():
        mean = sum(part["grads"][key] for part in parts) / WORLD
        torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-12, msg=key)
    for key, expected in whole["buffers"].items():
        for part in parts:
            torch.testing.assert_close(part["buffers"][key], expected, msg=key)


def test_gather_of_uneven_batches(ranks: list[dict[str, Any]]) -> None:
    rows = torch.arange(4.0).view(4, 1)
    results = [rank["uneven"] for rank in ranks]
    assert [r["offset"] for r in results] == [0, 3]
    assert all(torch.equal(r["joined"], rows) for r in results)
    grad = torch.cat([r["grad"] for r in results])
    torch.testing.assert_close(grad, 2 * rows * (1 + 2))  # what both ranks say about each row


def test_one_process_gathers_nothing() -> None:
    x = torch.ones(2, 3)
    assert distributed.gather(x) is x
    assert distributed.gather_with_offset(x) == (x, 0)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


@pytest.mark.parametrize("work", [hang_on_rank_1, die_on_rank_1])
def test_a_rank_that_hangs_or_dies_fails_the_test(work: Any, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(AssertionError, match="exit codes by rank"):
        run_ranks(work, 2, tmp_path, timeout=2)
    assert time.monotonic() - start < 20
