# SPDX-License-Identifier: MIT
"""Calibration by nested loops, and variants that are wrong."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from ltplugins.metrics.calibration import BINS
from ltplugins.metrics.confidence import (
    Predictions,
    ece,
    group_ece,
    top_class,
)

GROUPS = {"many": [3], "medium": [0, 1], "few": [2, 4]}


def scores(num: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities of five classes, and labels that agree with some of them."""
    g = torch.Generator().manual_seed(seed)
    probs = torch.softmax(3 * torch.randn(num, 5, generator=g), dim=1)
    noise = torch.randint(0, 5, (num,), generator=g)
    return probs, torch.where(torch.rand(num, generator=g) < 0.6, probs.argmax(1), noise)


def slow(found: Predictions, targets: Tensor, weigh: bool = True, absolute: bool = True) -> float:
    """The definition, image by image; with the flags off, two ways to get it wrong."""
    total = 0.0
    for b in range(BINS):
        inside = [
            i
            for i, p in enumerate(found.confidence.double().tolist())
            if b / BINS < p <= (b + 1) / BINS
        ]
        if not inside:
            continue
        confidence = sum(found.confidence[i].item() for i in inside) / len(inside)
        accuracy = sum(found.preds[i] == targets[i] for i in inside).item() / len(inside)
        gap = abs(accuracy - confidence) if absolute else accuracy - confidence
        total += gap * (len(inside) / len(targets) if weigh else 1 / BINS)
    return total


def test_calibration_is_the_definition() -> None:
    probs, targets = scores()
    found = top_class(probs)
    error = ece(found, targets)
    assert error == pytest.approx(slow(found, targets), abs=1e-5)
    whole = multiclass_calibration_error(probs, targets, num_classes=5, n_bins=BINS)
    assert error == pytest.approx(whole.item(), abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda found, targets: slow(found, targets, weigh=False),
        lambda found, targets: abs(slow(found, targets, absolute=False)),
        lambda found, targets: (found.confidence.mean() - 0.2).item(),  # no accuracy in it
    ],
)
def test_wrong_variants_are_told_apart(wrong: Callable) -> None:
    probs, targets = scores()
    found = top_class(probs)
    assert abs(ece(found, targets) - wrong(found, targets)) > 0.01


def test_groups_are_those_of_the_true_class() -> None:
    probs, targets = scores()
    found = top_class(probs)
    errors = group_ece(found, targets, GROUPS)
    for name, labels in GROUPS.items():
        mine = torch.tensor([label in labels for label in targets.tolist()])
        own = Predictions(found.preds[mine], found.confidence[mine])
        assert errors[name] == pytest.approx(slow(own, targets[mine]), abs=1e-5)
    none = group_ece(found, targets, {**GROUPS, "medium": [0, 1, 2, 4], "few": []})
    assert none["few"] is None


def test_certain_and_right_is_no_error_and_rounding_does_no_harm() -> None:
    sure = Predictions(torch.tensor([0, 1]), torch.tensor([1.0000001, 1.0]))
    assert ece(sure, torch.tensor([0, 1])) == pytest.approx(0, abs=1e-6)
    assert ece(sure, torch.tensor([1, 0])) == pytest.approx(1, abs=1e-6)


def test_equal_scores_go_to_the_smaller_class() -> None:
    assert top_class(torch.tensor([[0.2, 0.4, 0.4]])).preds.tolist() == [1]


def test_a_bin_holds_its_upper_end() -> None:
    """As in the definition, and in the reliability diagram: certain ones have no bin alone."""
    found = Predictions(torch.tensor([0, 1]), torch.tensor([1.0, 0.95]))
    assert ece(found, torch.tensor([1, 1])) == pytest.approx(0.975 - 0.5)
    none = Predictions(found.preds[:0], found.confidence[:0])
    assert ece(none, torch.tensor([], dtype=torch.long)) is None
