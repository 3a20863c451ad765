# SPDX-License-Identifier: MIT
"""COLT on two gloo processes: its term on uneven ranks, and its selection, are one process's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.kit.cases import WRAPPERS
from tests.kit.hosts import SIZE, make_cfg
from tests.kit.ranks import join_ranks, run_ranks
from tests.kit.runs import step as quiet_step

WORLD, IMAGES, POOL = 2, 13, 11
WHOLE = slice(0, 8)
# The last batch of an epoch need not be even.
UNEVEN = (slice(0, 3), slice(3, 8))
# COLT's weight.
CASES = {"colt": 0.2, "without the term": 0.0}


class Trainer:
    """What a step asks of a trainer."""

    current_epoch, world_size, global_step = 5, 1, 0


class Data:
    """Stream of a fixed pool; stands in for the data module."""

    num_samples, num_ood = IMAGES, POOL

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(7)
        self.parts = {
            "id": torch.randn(IMAGES, 3, SIZE, SIZE, generator=g).double(),
            "ood": torch.randn(POOL, 3, SIZE, SIZE, generator=g).double(),
        }

    def stream(self, part: str, start: int, stop: int) -> Any:
        for i in range(start, stop, 4):
            images = self.parts[part][i : min(i + 4, stop)]
            yield images, torch.ones(len(images), dtype=torch.bool)


def model_of(weight: float) -> Any:
    """COLT over SimCLR with linear maps: BatchNorm would differ per rank by design."""
    import ltplugins
    from ltplugins.host import METHODS

    ltplugins.register()
    cfg = make_cfg("simclr", scheduler__warmup_epochs=0, data__num_samples=IMAGES)
    cfg.method = "colt_simclr"
    cfg.method_kwargs.colt = {**WRAPPERS["colt"].steps.kwargs, "weight": weight}
    cfg.data.update(ood={"dataset": "emoji_pack"}, sampler="id_plus_ood")
    torch.manual_seed(0)
    model: Any = METHODS["colt_simclr"](cfg)
    model.backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, model.features_dim))
    model.projector = nn.Linear(model.features_dim, 8)
    model._trainer = Trainer()
    model.log_dict = model.log = lambda *args, **kwargs: None
    return model.double()


def batch_of(rows: slice) -> list[Any]:
    g = torch.Generator().manual_seed(1)
    views = [torch.randn(8, 3, SIZE, SIZE, generator=g).double() for _ in range(2)]
    indexes = torch.tensor([4, IMAGES + 2, 0, IMAGES + 9, 12, IMAGES, 3, IMAGES + 5])
    targets = torch.where(indexes < IMAGES, indexes % 3, -1)
    return [indexes[rows], [view[rows] for view in views], targets[rows]]


def step(case: str, rows: slice) -> dict[str, Any]:
    """Loss and gradients of one step on these rows of the joined batch."""
    model = model_of(CASES[case])
    loss = quiet_step(model, batch_of(rows))
    loss.backward()
    return {"loss": loss.detach(), "grads": {k: p.grad for k, p in model.named_parameters()}}


def selections() -> dict[str, Any]:
    from ltplugins.methods.parts.ood_subset import choose_subset

    model, chosen = model_of(CASES["colt"]), {}
    scores, filled = torch.linspace(0, 1, IMAGES), torch.ones(IMAGES, dtype=torch.bool)
    for size in (POOL, 1):  # a pool smaller than the number of ranks, too
        data = Data()
        data.num_ood = size
        chosen[str(size)] = choose_subset(model, data, scores, filled, 5, model.colt)[0].tolist()
    return chosen


def on_rank(rank: int, world: int, folder: Path) -> dict[str, Any]:
    join_ranks(rank, world, folder)
    results: dict[str, Any] = {case: step(case, UNEVEN[rank]) for case in CASES}
    results["chosen"] = selections()
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("colt_ranks")
    return run_ranks(on_rank, WORLD, folder)


def test_the_term_is_the_joined_batchs_on_uneven_ranks(ranks: list[dict[str, Any]]) -> None:
    """SimCLR's mean over a rank's own rows depends on their number; COLT's term does not."""

    def term(results: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        on, off = results["colt"], results["without the term"]
        grads = {k: on["grads"][k] - off["grads"][k] for k in on["grads"]}
        return on["loss"] - off["loss"], grads

    loss, grads = term({case: step(case, WHOLE) for case in CASES})
    assert loss > 0.1
    parts = [term(rank) for rank in ranks]
    for part, _ in parts:
        torch.testing.assert_close(part, loss, rtol=1e-9, atol=0)
    for key, expected in grads.items():
        mean = sum(part[key] for _, part in parts) / WORLD
        torch.testing.assert_close(mean, expected, rtol=1e-7, atol=1e-12, msg=key)


def test_the_selection_is_one_processs(ranks: list[dict[str, Any]]) -> None:
    expected = selections()
    assert len(set(expected[str(POOL)])) == 5
    assert expected["1"] == [0]
    assert [rank["chosen"] for rank in ranks] == [expected] * WORLD
