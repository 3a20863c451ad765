# SPDX-License-Identifier: MIT
"""Two gloo processes equal one on the joined batch, in loss, gradient and state, for every method.

``pytest -s tests/methods/matrix/test_ranks.py`` prints the table of the largest differences. A new
wrapper or method joins by one line in ``tests/kit/cases.py``; without it a test here fails.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kit.cases import COMPOSED, METHODS, WRAPPERS, case_of, cases_of, names, wrappers_of
from tests.kit.hosts import on_the_stand_in
from tests.kit.ranks import join_ranks, run_ranks
from tests.kit.two_steps import SIZES, joined_batch, own_rows, two_steps

WORLD = 2
KEYS = [(name, split) for name in names() for split in SIZES]
# solo-learn's own losses are not ours to compare, and the ranks are forked with the stand-in.
pytestmark = [on_the_stand_in, pytest.mark.xdist_group("ranks")]


def on_rank(rank: int, world: int, folder: Path) -> dict[Any, Any]:
    join_ranks(rank, world, folder)
    results = {key: two_steps(*key, rank, world) for key in KEYS}
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """One pair of processes for all methods."""
    folder = tmp_path_factory.mktemp("ranks")
    return run_ranks(on_rank, WORLD, folder)


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_two_ranks_equal_one(key: Any, ranks: list[dict[Any, Any]]) -> None:
    whole, parts = two_steps(*key), [rank[key] for rank in ranks]
    mean = sum(part["loss"] for part in parts) / WORLD
    assert all(part["grads"].keys() == whole["grads"].keys() for part in parts)
    grads = {k: sum(part["grads"][k] for part in parts) / WORLD for k in whole["grads"]}
    worst = max(float((grads[k] - g).abs().max()) for k, g in whole["grads"].items())
    print(
        f"\n{key[0]:<20}{key[1]:<8} loss {mean - whole['loss']:.1e}  gradient {worst:.1e}", end=""
    )
    torch.testing.assert_close(mean, whole["loss"], rtol=1e-10, atol=1e-12)
    for k, expected in whole["grads"].items():
        torch.testing.assert_close(grads[k], expected, rtol=1e-8, atol=1e-12, msg=k)
    # The comparison means something: the method's own loss reaches the backbone.
    assert whole["grads"]["backbone.1.weight"].abs().max() > 1e-5
    for case in cases_of(key[0]):
        case.steps.check(whole["buffers"])


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_what_the_ranks_remember_is_what_one_process_does(key: Any, ranks: Any) -> None:
    """The same on every rank, bit for bit, without a broadcast."""
    expected = two_steps(*key)["buffers"]
    one, two = (rank[key]["buffers"] for rank in ranks)
    assert one.keys() == two.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(one[name], two[name]), name
        torch.testing.assert_close(one[name], value, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", [n for n in names() if wrappers_of(n) or n in METHODS])
def test_a_rank_alone_says_something_else(name: str) -> None:
    """The other rank's images count: without them the same rows give another loss."""
    whole, alone = two_steps(name, "even"), two_steps(name, "even", 0, WORLD)
    assert abs(float(whole["loss"] - alone["loss"])) > 1e-4
    if name.startswith("bcl"):
        both = alone["buffers"]["bcl_memory_filled"] & whole["buffers"]["bcl_memory_filled"]
        assert both.any()
        memories = [part["buffers"]["bcl_memory"][both] for part in (alone, whole)]
        assert not torch.allclose(*memories, rtol=1e-2)


def test_every_wrapper_and_method_of_the_registry_has_its_line() -> None:
    from ltplugins.methods.registry import COMPOSED as OUR_COMPOSED
    from ltplugins.methods.registry import METHODS as OURS
    from ltplugins.methods.registry import WRAPPERS as OUR_WRAPPERS

    composed = {f"{each.outer}_{each.inner}_simclr" for each in OUR_COMPOSED}
    missing = ({*OUR_WRAPPERS} - {*WRAPPERS}) | ({*OURS} - {*METHODS}) | (composed - {*COMPOSED})
    assert not missing, f"tests/kit/cases.py has no line for {', '.join(sorted(missing))}"


def test_the_ranks_share_the_rows_unevenly() -> None:
    for name, split in KEYS:
        indexes, _, targets = joined_batch(name, split, 2)
        rows = [own_rows(name, len(indexes), rank, WORLD) for rank in range(WORLD)]
        assert sorted(torch.cat(rows).tolist()) == list(range(len(indexes)))
        assert (len(rows[0]) == len(rows[1])) == (split == "even")
        labels = [int((targets[r] != -1).sum()) for r in rows]
        assert case_of(name).steps.labelled or split == "uneven" or labels[0] != labels[1], name
