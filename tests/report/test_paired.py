# SPDX-License-Identifier: MIT
"""Paired differences: interval, sign-flip test and verdict, against values worked out by hand."""

import itertools

import numpy as np
import pytest

from ltplugins.report.paired import Paired, paired

SIX = [0.03, 0.01, -0.01, 0.02, 0.05, 0.02]


def test_the_interval_is_students():
    found = paired(SIX)
    # t(0.975, 5 degrees of freedom) = 2.5706, from a table.
    reach = 2.5706 * np.std(SIX, ddof=1) / np.sqrt(6)
    assert found.n == 6
    assert found.effect == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.02 - reach, 0.02 + reach), abs=1e-6)


@pytest.mark.parametrize("values", [SIX, SIX[:3], [0.2, -0.1], [0.0] * 6, [-1.0] * 7])
def test_the_sign_flip_test_is_exact(values):
    means = [
        np.mean(np.multiply(signs, values))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    expected = np.mean(np.abs(means) >= abs(np.mean(values)) - 1e-12)
    assert paired(values).p == pytest.approx(expected)


def test_six_pairs_show_at_best_one_in_32():
    assert paired([1, 2, 3, 4, 5, 6]).p == pytest.approx(1 / 32)
    assert paired([1, 2, 3]).p == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("values", "direction", "verdict"),
    [
        ([0.1, 0.2, 0.1, 0.2, 0.1, 0.2], "higher", "holds"),
        ([0.1, 0.2, 0.1, 0.2, 0.1, 0.2], "lower", "does not"),
        ([-0.1, -0.2, -0.1, -0.2, -0.1, -0.2], "higher", "does not"),
        ([-0.1, -0.2, -0.1, -0.2, -0.1, -0.2], "lower", "holds"),
        ([0.1, -0.2, 0.1, -0.2, 0.1, 0.2], "higher", "unknown"),
        ([0.1, 0.2, 0.1, 0.2, 0.1], "higher", "unknown"),  # five pairs
        ([0.0] * 6, "higher", "unknown"),
        ([0.1] * 6, "higher", "holds"),
    ],
)
def test_verdicts(values, direction, verdict):
    assert paired(values).verdict(direction) == verdict


def test_few_pairs_have_no_interval():
    assert paired([]) == Paired(0)
    assert paired([0.1]) == Paired(1, 0.1, p=1.0)


def test_a_picture_holds_whole_what_a_verdict_is_of() -> None:
    """The widest of four intervals of six pairs was cut, and the empty side was as wide."""
    from ltplugins.report.compare import Effect
    from ltplugins.report.forest import reach_of

    sure = [Effect(str(i), Paired(6, x, x - 0.03, x + 0.03)) for i, x in enumerate((0, 0.01, 0.17))]
    assert reach_of(sure) == pytest.approx((-3.18, 21.2))
    wide = Effect("two pairs", Paired(2, 0.02, -0.9, 0.94))
    assert reach_of([*sure, wide]) == pytest.approx((-3.18, 21.2))
    assert reach_of([Effect("one pair", Paired(1, -0.04), (-0.04,))]) == pytest.approx(
        (-4.24, 0.53)
    )
