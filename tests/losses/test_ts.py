# SPDX-License-Identifier: MIT
"""The temperature schedule against hand values, the official code's numbers and wrong variants."""

import math

import pytest
import torch

from ltplugins.losses.terms.bases import nt_xent
from ltplugins.losses.ts import cosine_temperature

OFFICIAL = {"temperature_min": 0.1, "temperature_max": 1.0, "t_max": 200}


def oracle(epoch, low=0.1, high=1.0, t_max=200):
    """By the half-angle formula: (1 + cos x) / 2 = cos^2(x / 2)."""
    return low + (high - low) * math.cos(math.pi * epoch / (2 * t_max)) ** 2


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 1.0), (100, 0.55), (200, 0.1), (300, 0.55), (400, 1.0), (200 / 3, 0.775), (1000, 0.1)],
)
def test_values_by_hand(epoch, expected):
    assert cosine_temperature(epoch, **OFFICIAL) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (1, 0.9999445080757141),
        (50, 0.8681980967521667),
        (137, 0.302939772605896),
        (200, 0.10000000149011612),
        (400, 1.0),
        (777, 0.9709498286247253),
    ],
)
def test_numbers_of_the_official_code(epoch, expected):
    """The expression of ``train_simCLR.py`` at 3ac1db6, which is in float32."""
    assert cosine_temperature(epoch, **OFFICIAL) == pytest.approx(expected, rel=1e-6)


def test_oracle_rejects_wrong_variants():
    epochs = [0, 0.5, 1, 7, 63, 100, 150, 199, 260, 399, 555]
    right = [oracle(e) for e in epochs]
    assert [cosine_temperature(e, **OFFICIAL) for e in epochs] == pytest.approx(right)

    def curve(f):
        return [f(e) for e in epochs]

    wrong = [
        curve(lambda e: 0.1 + 0.45 * (1 + math.cos(2 * math.pi * e / 200))),  # T a whole period
        curve(lambda e: 0.1 + 0.45 * (1 - math.cos(math.pi * e / 200))),  # begins at the lowest
        curve(lambda e: 0.1 + 0.9 * (1 + math.cos(math.pi * e / 200))),  # no half
        curve(lambda e: 0.1 + 0.9 * math.cos(math.pi * e / 200)),  # no one: goes below tau-
        curve(lambda e: 1.0 - 0.9 * (e % 200) / 200),  # a saw
    ]
    for variant in wrong:
        assert variant != pytest.approx(right, abs=1e-2)


def test_bounds_period_and_symmetry():
    for epoch in range(0, 900, 7):
        value = cosine_temperature(epoch, **OFFICIAL)
        assert 0.1 - 1e-12 <= value <= 1.0 + 1e-12
        assert cosine_temperature(epoch + 400, **OFFICIAL) == pytest.approx(value)
        assert cosine_temperature(400 - epoch, **OFFICIAL) == pytest.approx(value)
    falling = [cosine_temperature(e, **OFFICIAL) for e in range(201)]
    assert falling == sorted(falling, reverse=True)


def test_a_constant_schedule_is_the_constant():
    options = {"temperature_min": 0.2, "temperature_max": 0.2, "t_max": 7}
    assert {cosine_temperature(e / 3, **options) for e in range(99)} == {0.2}


def test_the_bases_loss_is_finite_all_along_a_schedule_down_to_a_hundredth():
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ids = torch.arange(8).repeat(2)
    for epoch in range(1, 9):
        low = cosine_temperature(epoch, temperature_min=0.01, temperature_max=1.0, t_max=4)
        loss = nt_xent(z, ids, low)
        (grad,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(loss)
        assert torch.isfinite(grad).all()
