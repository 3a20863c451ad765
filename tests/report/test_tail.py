# SPDX-License-Identifier: MIT
"""What the tail costs: planted slopes come out, and what looks like them does not."""

import math

import numpy as np
import pytest

from ltplugins.data.imbalance import class_order
from ltplugins.report.tail import tail_cost

COUNTS = np.array([1500, 900, 540, 320, 190, 115, 70, 41, 25, 15])
DIFFICULTY = np.linspace(0.4, 0.9, 10)


def images(orders=(1, 2, 3, 4, 5, 6)):
    rows = np.zeros((len(orders), 10), dtype=int)
    for row, order in zip(rows, orders, strict=True):
        row[class_order(order, 10)] = COUNTS
    return rows


def planted(rows, slopes, runs=0.0):
    """Accuracies with ``slopes`` a factor of ten, of classes of unlike difficulty."""
    return DIFFICULTY + np.asarray(slopes) * np.log10(rows) / 10 + np.asarray(runs)


def test_planted_slopes_come_out():
    slopes = np.linspace(-0.1, 0.5, 10)
    found = tail_cost(images(), planted(images(), slopes))
    assert found.n == 10
    assert found.effect == pytest.approx(0.2 / 10 * 2)  # two factors of ten
    each = slopes / 10 * 2
    assert found.high - found.effect == pytest.approx(
        2.262157 * each.std(ddof=1) / math.sqrt(10), rel=1e-6
    )


def test_hard_and_easy_classes_cost_nothing():
    """Groups of one run say that they do: the easy classes are the rare ones of this order."""
    rows, shares = images(), planted(images(), 0.0)
    few = [share[row <= 70].mean() for row, share in zip(rows, shares, strict=True)]
    many = [share[row >= 540].mean() for row, share in zip(rows, shares, strict=True)]
    assert max(abs(a - b) for a, b in zip(many, few, strict=True)) > 0.1
    assert tail_cost(rows, shares).effect == pytest.approx(0, abs=1e-12)


def test_better_runs_hardly_count():
    runs = np.array([[0.0], [0.01], [-0.01], [0.02], [-0.02], [0.0]])
    assert abs(tail_cost(images(), planted(images(), 0.0, runs)).effect) < 0.005


@pytest.mark.parametrize(
    "rows",
    [
        images((1, 2)),  # two runs
        images((3, 3, 3)),  # the same order
        images()[:, :] + np.arange(6)[:, None],  # other numbers of images, as of spatial folds
        np.zeros((0, 10), dtype=int),
        images() * 0,
    ],
)
def test_runs_that_do_not_rotate_say_nothing(rows):
    found = tail_cost(rows, planted(np.maximum(rows, 1), 1.0))
    assert (found.n, found.effect) == (0, None)


def test_a_class_that_always_has_as_many_images_is_left_out():
    rows = images()
    for row in rows:
        where = int(np.flatnonzero(row == 1500)[0])
        row[where], row[0] = row[0], 1500
    found = tail_cost(rows, planted(rows, [9.0] + [0.2] * 9))
    assert found.n == 9
    assert found.effect == pytest.approx(0.04)
