# SPDX-License-Identifier: MIT
"""Two gloo processes equal one on the joined batch, in loss and gradient, for every method.

``pytest -s tests/methods/test_ddp_equality.py`` prints the table of the largest differences. A new
wrapper or method joins by one line in ``ddp_cases.py``; without it a test here fails.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kit.cases import (
    METHODS,
    SIZES,
    WRAPPERS,
    case_of,
    joined_batch,
    names,
    own_rows,
    two_steps,
)
from tests.kit.ranks import join_ranks, run_ranks

WORLD = 2
KEYS = [(name, split) for name in names() for split in SIZES]


def on_rank(rank: int, world: int, folder: Path) -> None:
    join_ranks(rank, world, folder, seconds=60)
    results = {key: two_steps(*key, rank, world) for key in KEYS}
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def largest_differences(key: Any, ranks: list[dict[Any, Any]], whole: Any) -> tuple[float, float]:
    """Of the loss and of any gradient, from one process to the mean over ranks."""
    parts = [rank[key] for rank in ranks]
    loss = float(abs(sum(part["loss"] for part in parts) / WORLD - whole["loss"]))
    assert all(part["grads"].keys() == whole["grads"].keys() for part in parts)
    grads = [
        float((sum(part["grads"][k] for part in parts) / WORLD - g).abs().max())
        for k, g in whole["grads"].items()
    ]
    return loss, max(grads)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """One pair of processes for all methods."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(on_rank, WORLD, folder, timeout=240)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


@pytest.fixture(autouse=True)
def _builtin_host(monkeypatch: pytest.MonkeyPatch) -> None:
    from ltplugins.host import HOST

    if HOST.name != "builtin":
        pytest.skip("solo-learn's own losses are not ours to compare")


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_two_ranks_equal_one(key: Any, ranks: list[dict[Any, Any]]) -> None:
    whole = two_steps(*key)
    loss, grad = largest_differences(key, ranks, whole)
    print(f"\n{key[0]:<20}{key[1]:<8} loss {loss:.1e}  gradient {grad:.1e}", end=" ")
    assert loss < 1e-6 * max(1, abs(float(whole["loss"])))
    assert grad < 1e-6
    # The comparison means something: the method's own loss reaches the backbone.
    assert whole["grads"]["backbone.1.weight"].abs().max() > 1e-5
    for rank in ranks:
        for name, value in rank[key]["buffers"].items():
            # A queue holds the same keys in another order: the second step's loss has seen them.
            if name == "queue" or "_queue" in name:
                continue
            torch.testing.assert_close(value, whole["buffers"][name], rtol=1e-6, atol=1e-7)


def test_every_wrapper_and_method_of_the_registry_has_its_line() -> None:
    from ltplugins.methods.registry import METHODS as OURS
    from ltplugins.methods.registry import WRAPPERS as OUR_WRAPPERS

    missing = ({*OUR_WRAPPERS} - {*WRAPPERS}) | ({*OURS} - {*METHODS})
    assert not missing, f"tests/methods/ddp_cases.py has no line for {', '.join(sorted(missing))}"


def test_the_ranks_share_the_rows_unevenly() -> None:
    for name, split in KEYS:
        _, case = case_of(name)
        indexes, _, targets = joined_batch(case, split, 2)
        rows = [own_rows(case, len(indexes), rank, WORLD) for rank in range(WORLD)]
        assert sorted(torch.cat(rows).tolist()) == list(range(len(indexes)))
        assert (len(rows[0]) == len(rows[1])) == (split == "even")
        labels = [int((targets[r] != -1).sum()) for r in rows]
        assert case.labelled or split == "uneven" or labels[0] != labels[1], name
