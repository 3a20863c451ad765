# SPDX-License-Identifier: MIT
"""Shot groups and group accuracies against values worked out by hand."""

import json
import statistics

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.metrics.groups import (
    GROUPS,
    class_hits,
    explain_missing,
    group_accuracy,
    rank_classes,
    shot_groups,
)


def test_threshold_boundaries() -> None:
    groups = shot_groups([101, 100, 20, 19, 0, 500], "threshold")
    assert groups == {"many": [0, 5], "medium": [1, 2], "few": [3, 4]}


@pytest.mark.parametrize(
    ("num_classes", "sizes"),
    [
        (100, [34, 33, 33]),
        (10, [4, 3, 3]),
        (1000, [334, 333, 333]),
        (11, [4, 4, 3]),
        (9, [3, 3, 3]),
    ],
)
def test_tercile_sizes(num_classes: int, sizes: list[int]) -> None:
    groups = shot_groups(range(num_classes), "tercile")
    assert [len(groups[name]) for name in GROUPS] == sizes
    assert sorted(c for name in GROUPS for c in groups[name]) == list(range(num_classes))
    # Counts rise with the class id here, so the last classes are the many-shot ones.
    assert groups["many"][-1] == num_classes - 1
    assert groups["few"][0] == 0


def test_tercile_ties_go_by_class_id() -> None:
    assert rank_classes([5, 9, 5, 9]) == [1, 3, 0, 2]
    assert shot_groups([5, 9, 5, 9], "tercile") == {"many": [1, 3], "medium": [0], "few": [2]}
    counts = torch.tensor([7] * 6)
    assert shot_groups(counts, "tercile") == {"many": [0, 1], "medium": [2, 3], "few": [4, 5]}


def test_empty_groups_are_kept() -> None:
    assert shot_groups([500, 300], "threshold") == {"many": [0, 1], "medium": [], "few": []}


@pytest.mark.parametrize(
    ("counts", "protocol", "words"),
    [
        ([1], "terciles", "unknown group protocol 'terciles'. Did you mean 'tercile'?"),
        ([3, -1], "tercile", "class_counts[1] is -1"),
        ([], "tercile", "class_counts is empty"),
    ],
)
def test_bad_groups(counts: list[int], protocol: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        shot_groups(counts, protocol)
    assert words in str(error.value)


def test_group_accuracy_by_hand() -> None:
    # class 0: 3 of 4 hit; class 1: 1 of 2; class 2: 0 of 1; class 3: no test image.
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    preds = torch.tensor([0, 0, 0, 3, 1, 0, 1])
    groups = {"many": [0, 1], "medium": [2], "few": [3]}
    result = group_accuracy(preds, targets, groups, 4)
    assert result.overall == pytest.approx(4 / 7)
    assert result.per_class == [0.75, 0.5, 0.0, None]
    assert result.many == pytest.approx(4 / 6)  # over images; the mean of classes would be 0.625
    assert result.medium == 0.0
    assert result.few is None
    assert result.group_std == pytest.approx(1 / 3)  # population std of 2/3 and 0
    assert result.balanced == pytest.approx(1.25 / 3)
    assert result.class_std == pytest.approx(statistics.pstdev([0.75, 0.5, 0.0]))
    assert json.loads(json.dumps(result.as_dict()))["few"] is None


def test_one_group_has_no_spread() -> None:
    labels = torch.tensor([0, 1])
    result = group_accuracy(labels, labels, shot_groups([500, 300], "threshold"), 2)
    assert (result.many, result.medium, result.few, result.group_std) == (1.0, None, None, None)


def test_hits_of_parts_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    preds, targets = torch.randint(5, (2, 100), generator=generator)
    parts = class_hits(preds[:30], targets[:30], 5) + class_hits(preds[30:], targets[30:], 5)
    assert torch.equal(parts, class_hits(preds, targets, 5))


@pytest.mark.parametrize(
    ("preds", "targets", "words"),
    [
        ([0, 1], [0, -1], "test label -1 is outside 0..2"),
        ([0, 3], [0, 1], "prediction 3 is outside 0..2"),
        ([0], [0, 1], "one prediction per test image"),
        ([], [], "the test set is empty"),
    ],
)
def test_bad_predictions(preds: list[int], targets: list[int], words: str) -> None:
    groups = shot_groups([3, 2, 1], "tercile")
    with pytest.raises(UserError, match=words):
        group_accuracy(torch.tensor(preds), torch.tensor(targets), groups, 3)


def test_groups_must_cover_the_classes() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(UserError, match="each of the 3 classes exactly once"):
        group_accuracy(labels, labels, {"many": [0], "medium": [1], "few": [1]}, 3)


def test_missing_groups_name_the_way_out() -> None:
    empty = explain_missing(shot_groups([500, 50], "threshold"), [5, 5], "threshold")
    assert empty == [
        "few is n/a under the threshold rule: no class has fewer than 20 training images; "
        "set groups to [tercile] for groups of equal size."
    ]
    untested = explain_missing(shot_groups([9, 5, 1], "tercile"), [5, 5, 0], "tercile")
    assert untested == [
        "few is n/a under the tercile rule: its classes (2) have no test image; "
        "evaluate on a test set that holds them."
    ]
    two = explain_missing(shot_groups([9, 5], "tercile"), [5, 5], "tercile")
    assert two == ["few is n/a under the tercile rule: thirds need 3 classes, there are 2."]
    assert explain_missing(shot_groups([9, 5, 1], "tercile"), [5, 5, 1], "tercile") == []
