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


def test_a_planted_slope_comes_out():
    found = tail_cost(images(), planted(images(), 0.2))
    assert (found.n, found.p) == (10, None)
    assert [found.effect, found.low, found.high] == pytest.approx([0.04] * 3)  # two factors of ten


def test_unlike_slopes_and_noise_equal_least_squares_with_dummies():
    """The estimate of a regression with a column a class, and its error clustered by class."""
    rows = images()
    noise = np.random.default_rng(0).normal(0, 0.02, rows.shape)
    shares = planted(rows, np.linspace(-0.1, 0.5, 10)) + noise
    found = tail_cost(rows, shares)
    design = np.zeros((60, 11))
    for run in range(6):
        for k in range(10):
            design[run * 10 + k, [k, 10]] = 1, math.log10(rows[run, k])
    fitted, *_ = np.linalg.lstsq(design, shares.ravel(), rcond=None)
    assert found.effect == pytest.approx(2 * fitted[10])
    left = shares.ravel() - design @ fitted
    bread = np.linalg.inv(design.T @ design)
    scores = [design[k::10].T @ left[k::10] for k in range(10)]
    spread = bread @ sum(np.outer(s, s) for s in scores) @ bread * 10 / 9
    reach = 2.262157 * 2 * math.sqrt(spread[10, 10])
    assert [found.low, found.high] == pytest.approx(
        [found.effect - reach, found.effect + reach], rel=1e-5
    )
    # Neither the plain mean of the classes' slopes nor errors that forget the classes.
    assert found.effect != pytest.approx(2 * np.mean(np.linspace(-0.1, 0.5, 10)) / 10, rel=0.02)
    plain = 2.262157 * 2 * math.sqrt(bread[10, 10] * float(left @ left) / 49)
    assert reach != pytest.approx(plain, rel=0.05)


def test_hard_and_easy_classes_cost_nothing():
    """Groups of one run say that they do: the easy classes are the rare ones of this order."""
    rows, shares = images(), planted(images(), 0.0)
    few = [share[row <= 70].mean() for row, share in zip(rows, shares, strict=True)]
    many = [share[row >= 540].mean() for row, share in zip(rows, shares, strict=True)]
    assert max(abs(a - b) for a, b in zip(many, few, strict=True)) > 0.1
    assert tail_cost(rows, shares).effect == pytest.approx(0, abs=1e-12)


def test_better_runs_cost_nothing():
    runs = np.array([[0.0], [0.1], [-0.1], [0.2], [-0.2], [0.0]])
    assert tail_cost(images(), planted(images(), 0.0, runs)).effect == pytest.approx(0, abs=1e-12)


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
