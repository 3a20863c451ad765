# SPDX-License-Identifier: MIT
"""Calibration against torchmetrics, a temperature that is known, confusion between groups."""

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from ltplugins.metrics.calibration import (
    calibration_error,
    fit_temperature,
    group_confusion,
    reliability,
)


def predictions(n=500, classes=5, sharp=2.0, seed=0):
    """Logits, and labels drawn from their own softmax: calibrated as they are."""
    g = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(n, classes, generator=g, dtype=torch.float64)
    return logits, torch.multinomial(F.softmax(logits, dim=1), 1, generator=g)[:, 0]


@pytest.mark.parametrize("bins", [3, 10, 15])
@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_the_error_is_that_of_torchmetrics(bins, factor):
    logits, targets = predictions()
    probs = F.softmax(factor * logits, dim=1)
    expected = multiclass_calibration_error(probs, targets, num_classes=5, n_bins=bins, norm="l1")
    table = reliability(probs, targets, bins)
    assert calibration_error(table) == pytest.approx(expected.item(), abs=1e-6)
    assert sum(row[0] for row in table) == 500


def test_the_error_tells_calibrated_from_sharpened():
    logits, targets = predictions(20000)
    errors = [
        calibration_error(reliability(F.softmax(f * logits, dim=1), targets)) for f in (1.0, 3.0)
    ]
    assert errors[0] < 0.01 < 0.05 < errors[1]


def test_a_bin_holds_its_upper_end():
    probs = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert [row[0] for row in reliability(probs, torch.tensor([0, 0]), 2)] == [1, 1]
    assert calibration_error([[0, 0, 0]]) is None


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_the_temperature_that_was_applied_is_found(factor):
    logits, targets = predictions(20000)
    assert fit_temperature(factor * logits, targets) == pytest.approx(factor, rel=0.05)


def test_each_class_counts_alike():
    """More images of one class, of which some are mistaken, move nothing; by image they would."""
    logits = torch.tensor([[2.0, 0.0]] * 4 + [[0.0, 2.0]] * 4)
    targets = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    first = targets == 0
    repeated = (
        torch.cat([logits, *[logits[first]] * 5]),
        torch.cat([targets, *[targets[first]] * 5]),
    )
    assert fit_temperature(*repeated) == pytest.approx(fit_temperature(logits, targets), rel=1e-4)
    by_image = [F.cross_entropy(repeated[0] / t, repeated[1]).item() for t in (0.5, 1.0)]
    by_class = [F.cross_entropy(logits / t, targets).item() for t in (0.5, 1.0)]
    assert by_image[0] < by_image[1] and by_class[0] > by_class[1]


def test_the_confusion_adds_up_and_says_what_is_taken_for_what():
    groups = {"many": [3], "medium": [0, 1], "few": [2]}
    targets = torch.tensor([3, 3, 0, 1, 1, 2, 2])
    preds = torch.tensor([3, 0, 1, 1, 3, 3, 2])
    assert group_confusion(preds, targets, groups) == [[1, 1, 0], [1, 2, 0], [1, 0, 1]]
