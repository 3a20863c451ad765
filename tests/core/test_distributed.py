# SPDX-License-Identifier: MIT
"""What ranks tell each other: joined rows of uneven batches, the first rank's word and its errors.

A rank that hangs or dies fails its test.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ltplugins.core import distributed
from ltplugins.core.errors import UserError
from tests.kit.ranks import die_on_rank_1, hang_on_rank_1, join_ranks, run_ranks

WORLD = 2


def uneven_gather(rank: int) -> dict[str, Any]:
    """3 rows on rank 0, 1 row on rank 1; every rank weighs the joined rows by its rank + 1."""
    sizes = (3, 1)
    rows = torch.arange(4.0).view(4, 1).split(sizes)[rank].clone().requires_grad_()
    joined, offset = distributed.gather_with_offset(rows)
    (joined * joined * (rank + 1)).sum().backward()
    return {"joined": joined.detach(), "offset": offset, "grad": rows.grad}


def fail_on_first_rank() -> str:
    def work() -> None:
        raise UserError("rank 0 says no")

    try:
        distributed.on_first_rank(work)
    except UserError as error:
        return str(error)
    return ""


def on_rank(rank: int, world: int, folder: Path) -> dict[str, Any]:
    join_ranks(rank, world, folder)
    results = {
        "uneven": uneven_gather(rank),
        "error": fail_on_first_rank(),
        "rank": distributed.on_first_rank(lambda: distributed.rank() + 10),
    }
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    return run_ranks(on_rank, WORLD, folder)


def test_gather_of_uneven_batches(ranks: list[dict[str, Any]]) -> None:
    rows = torch.arange(4.0).view(4, 1)
    results = [rank["uneven"] for rank in ranks]
    assert [r["offset"] for r in results] == [0, 3]
    assert all(torch.equal(r["joined"], rows) for r in results)
    grad = torch.cat([r["grad"] for r in results])
    torch.testing.assert_close(grad, 2 * rows * (1 + 2))  # what both ranks say about each row


def test_rank_0_decides_and_its_errors_reach_all(ranks: list[dict[str, Any]]) -> None:
    assert [r["rank"] for r in ranks] == [10, 10]
    assert [r["error"] for r in ranks] == ["rank 0 says no"] * 2


def test_one_process_gathers_nothing() -> None:
    x = torch.ones(2, 3)
    assert distributed.gather(x) is x
    assert distributed.gather_with_offset(x) == (x, 0)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


def test_a_rank_that_hangs_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape("exit codes by rank [")):
        run_ranks(hang_on_rank_1, WORLD, tmp_path, timeout=2)


def test_a_rank_that_dies_fails_the_test_at_once(tmp_path: Path) -> None:
    """Without waiting for the other, which says when it has been waited for."""
    with pytest.raises(AssertionError, match=re.escape("exit codes by rank [None, 3]")):
        run_ranks(die_on_rank_1, WORLD, tmp_path)
    assert not (tmp_path / "waited").exists()
