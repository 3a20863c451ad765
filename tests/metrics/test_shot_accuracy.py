# SPDX-License-Identifier: MIT
"""Shot-group accuracy in batches and over ranks: by hand, and which shortcuts would be wrong."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.metrics.groups import group_accuracy, shot_groups
from ltplugins.metrics.online_knn import OnlineKNN
from ltplugins.metrics.shot_accuracy import ShotAccuracy
from tests.kit.ranks import join_ranks, run_ranks

COUNTS = [300, 150, 40, 5]  # many: 0 and 1, medium: 2, few: 3
# Two batches, of 6 and of 3 labelled images.
PREDS = [torch.tensor([0, 0, 1, 2, 2, 0]), torch.tensor([3, 2, 0, 1])]
TARGETS = [torch.tensor([0, 0, 1, 2, 0, 3]), torch.tensor([3, 2, 3, -1])]
# many: 3 of 4, medium: 2 of 2, few: 1 of 3; 6 of 9 in all.
EXPECTED = {"overall": 600 / 9, "many": 75.0, "medium": 100.0, "few": 100 / 3}
WORLD = 2


def counted(batches: list[tuple[Tensor, Tensor]]) -> ShotAccuracy:
    metric = ShotAccuracy(COUNTS, "threshold")
    for preds, targets in batches:
        metric.update(preds, targets)
    return metric


def test_by_hand_over_two_batches() -> None:
    assert counted(list(zip(PREDS, TARGETS, strict=True))).compute() == pytest.approx(EXPECTED)


def test_mean_of_batches_and_other_shortcuts_are_wrong() -> None:
    batches = list(zip(PREDS, TARGETS, strict=True))
    alone = [counted([batch]).compute() for batch in batches]
    wrong = {
        "mean of the batches": sum(part["few"] for part in alone) / 2,  # 0 of 1 and 1 of 2
        "the last batch": alone[1]["few"],
        "unlabelled images as misses": 100 * 1 / 4,
        "mean of many's classes": (100 * 2 / 3 + 100) / 2,
    }
    right = {"mean of many's classes": EXPECTED["many"]}
    for name, value in wrong.items():
        assert abs(value - right.get(name, EXPECTED["few"])) > 1, name


def test_equals_the_evaluation_on_a_random_test_set() -> None:
    g = torch.Generator().manual_seed(0)
    counts = [300, 90, 19, 150, 60, 10, 200, 40, 5, 110, 25, 1]
    preds, targets = torch.randint(12, (2, 500), generator=g)
    for rule in ("threshold", "tercile"):
        metric = ShotAccuracy(counts, rule)
        for rows in torch.arange(500).split(77):
            metric.update(preds[rows], targets[rows])
        whole = group_accuracy(preds, targets, shot_groups(counts, rule), 12).as_dict()
        assert metric.compute() == pytest.approx({k: 100 * whole[k] for k in EXPECTED})


def test_groups_without_images_are_absent_and_reset_forgets() -> None:
    metric = counted([(torch.tensor([2]), torch.tensor([2]))])
    assert metric.compute() == {"overall": 100.0, "medium": 100.0}
    metric.reset()
    metric.update(torch.tensor([1, 1]), torch.tensor([-1, -1]))
    assert metric.compute() == {}


def test_bad_input_is_named() -> None:
    metric = ShotAccuracy(COUNTS, "threshold")
    with pytest.raises(UserError, match=r"test label 4 is outside 0\.\.3"):
        metric.update(torch.tensor([0]), torch.tensor([4]))
    with pytest.raises(UserError, match="one prediction per test image"):
        metric.update(torch.tensor([0, 1]), torch.tensor([0]))
    with pytest.raises(UserError, match="Did you mean 'tercile'"):
        ShotAccuracy(COUNTS, "terciles")


def feats_of(targets: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(targets.clamp(min=0), 4).float()


def on_rank(rank: int, world: int, folder: Path) -> dict[str, Any]:
    """Rank 0 has seen six images, rank 1 four, of which one is unlabelled."""
    join_ranks(rank, world, folder)
    metric = counted([(PREDS[rank], TARGETS[rank])])
    knn = OnlineKNN(k=1)
    told: list[Tensor] = []
    knn.on_predictions = lambda preds, targets: told.extend([preds, targets])
    bank = torch.arange(4)[2 * rank : 2 * rank + 2]
    knn.update(feats_of(bank), bank, feats_of(PREDS[rank]), TARGETS[rank])
    return {"shots": metric.compute(), "knn": knn.compute(), "told": told}


def test_two_ranks_with_uneven_shards_equal_one(tmp_path: Path) -> None:
    ranks = run_ranks(on_rank, WORLD, tmp_path)
    alone = [counted([batch]).compute() for batch in zip(PREDS, TARGETS, strict=True)]
    for rank, result in enumerate(ranks):
        assert result["shots"] == pytest.approx(EXPECTED)
        assert result["shots"] != pytest.approx(alone[rank])  # a rank alone says something else
        # Every rank is told of all ranks' images: what each counts is the whole.
        preds, targets = result["told"]
        assert preds.tolist() == [0, 0, 1, 2, 2, 0, 3, 2, 0]
        assert targets.tolist() == [0, 0, 1, 2, 0, 3, 3, 2, 3]
        assert result["knn"][0] == pytest.approx(EXPECTED["overall"])
    mean = sum(part["few"] for part in alone) / WORLD
    assert abs(mean - EXPECTED["few"]) > 1  # nor is it the mean over ranks
