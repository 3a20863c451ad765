# SPDX-License-Identifier: MIT
"""Health of features: slow loops, values known in closed form, and variants that are wrong."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import entropy
from torch import Tensor

from ltplugins.metrics.collapse import Health
from ltplugins.metrics.health import (
    alignment,
    class_means,
    dead_share,
    etf_deviation,
    measure,
    rankme,
    uniformity,
)


def feats(num: int = 60, dim: int = 8, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(num, dim, generator=g) * torch.linspace(0.1, 2, dim) + 0.5


def unit(row: np.ndarray) -> np.ndarray:
    return row / math.sqrt(sum(v * v for v in row))


def slow_rankme(x: Tensor) -> float:
    """With the paper's epsilon, from the eigenvalues of Z^T Z."""
    values = np.sqrt(np.linalg.eigvalsh(x.double().numpy().T @ x.double().numpy()).clip(0))
    shares = [value / sum(values) + 1e-7 for value in values]
    return math.exp(-sum(p * math.log(p) for p in shares))


def slow_uniformity(x: Tensor, t: float = 2.0) -> float:
    rows = [unit(row) for row in x.double().numpy()]
    terms = [
        math.exp(-t * sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True)))
        for i in range(len(rows))
        for j in range(i)
    ]
    return math.log(sum(terms) / len(terms))


def slow_alignment(x: Tensor, y: Tensor) -> float:
    pairs = zip(x.double().numpy(), y.double().numpy(), strict=True)
    return sum(float(((unit(a) - unit(b)) ** 2).sum()) for a, b in pairs) / len(x)


def slow_etf(x: Tensor) -> float:
    rows = x.double().numpy()
    rows = [unit(row - rows.mean(axis=0)) for row in rows]
    ideal = math.degrees(math.acos(-1 / (len(rows) - 1)))
    gaps = [
        abs(math.degrees(math.acos(float(rows[i] @ rows[j]))) - ideal)
        for i in range(len(rows))
        for j in range(i)
    ]
    return sum(gaps) / len(gaps)


def test_each_is_its_definition() -> None:
    x, y = feats(), feats(seed=1)
    assert rankme(x) == pytest.approx(slow_rankme(x), rel=1e-5)
    assert uniformity(x) == pytest.approx(slow_uniformity(x), rel=1e-9)
    assert alignment(x, y) == pytest.approx(slow_alignment(x, y), rel=1e-9)
    assert etf_deviation(x[:6]) == pytest.approx(slow_etf(x[:6]), rel=1e-9)


@pytest.mark.parametrize(
    ("ours", "wrong"),
    [
        (rankme, lambda x: rankme(x - x.mean(0))),  # centred
        (rankme, lambda x: math.exp(entropy(np.linalg.svd(x.numpy())[1] ** 2))),  # of variances
        (rankme, lambda x: float(torch.linalg.matrix_rank(x))),  # hard
        (uniformity, lambda x: slow_uniformity(x, t=1.0)),
        (uniformity, lambda x: math.log(np.exp(-2 * pdist(x.numpy()) ** 2).mean())),  # no sphere
        (uniformity, lambda x: uniformity(torch.cat([x, x]))),  # an image with itself
        (etf_deviation, lambda x: slow_90(x)),
    ],
)
def test_wrong_variants_are_told_apart(
    ours: Callable[[Tensor], float], wrong: Callable[[Tensor], float]
) -> None:
    x = feats(12)
    assert abs(ours(x) - wrong(x)) > 0.02


def slow_90(x: Tensor) -> float:
    """Angles that are not centred, against a right angle."""
    x = torch.nn.functional.normalize(x.double(), dim=1)
    row, column = torch.triu_indices(len(x), len(x), offset=1)
    return float(((x @ x.T)[row, column].clamp(-1, 1).arccos().rad2deg() - 90).abs().mean())


@pytest.mark.parametrize("dim", [3, 16])
def test_values_in_closed_form(dim: int) -> None:
    assert rankme(torch.eye(dim)) == pytest.approx(dim)
    assert rankme(torch.ones(20, dim)) == pytest.approx(1)
    assert uniformity(torch.eye(dim)) == pytest.approx(-4)
    assert uniformity(torch.ones(20, dim)) == pytest.approx(0, abs=1e-9)
    assert etf_deviation(torch.eye(dim)) == pytest.approx(0, abs=1e-5)
    assert dead_share(torch.ones(20, dim)) == 1
    x = feats(20, dim)
    assert alignment(x, 3 * x) == pytest.approx(0, abs=1e-12)
    assert alignment(x, -x) == pytest.approx(4)


def test_uniform_directions_reach_the_limit() -> None:
    """On a high-dimensional sphere nearly all distances are the root of 2."""
    x = torch.randn(800, 400, generator=torch.Generator().manual_seed(0))
    assert uniformity(x) == pytest.approx(-4, abs=0.05)
    assert 330 < rankme(x) < 400


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_in_every_precision_and_at_collapse(dtype: torch.dtype) -> None:
    for x in (feats().to(dtype), torch.zeros(9, 4, dtype=dtype), torch.ones(9, 4, dtype=dtype)):
        found = measure(x, x)
        assert all(math.isfinite(v) for v in (found.rankme, found.uniformity, found.alignment))
    assert rankme(torch.zeros(5, 4)) == 1 and uniformity(torch.zeros(5, 4)) == 0


def test_nothing_depends_on_the_order_or_on_a_rotation() -> None:
    x = feats()
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))[0]
    for ours in (rankme, uniformity):
        assert ours(x.flip(0)) == pytest.approx(ours(x), rel=1e-6)
        assert ours(x @ turn) == pytest.approx(ours(x), rel=1e-4)


def test_class_means_leave_out_what_has_no_label() -> None:
    x, targets = feats(6), torch.tensor([0, 4, 4, -1, 2, 0])
    means = class_means(x, targets)
    expected = torch.stack([x[[0, 5]].mean(0), x[4], x[[1, 2]].mean(0)])
    torch.testing.assert_close(means, expected.double())
    assert class_means(x, torch.tensor([0, 1, 1, -1, -1, 0])) is None
    assert measure(x, targets=targets).etf == pytest.approx(slow_etf(means))
    assert measure(x).etf is None and measure(x).alignment is None


GOOD = {"rankme": 40.0, "uniformity": -2.0, "dead": 0.1, "images": 500, "dim": 128}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"uniformity": -0.03}, None),
        ({"uniformity": -0.01}, "point one way"),
        ({"rankme": 1.9}, "use 1.9 of 128 possible"),
        ({"rankme": 8, "dim": 2048, "images": 1024}, "use 8.0 of 1024 possible"),
        ({"rankme": 2.5}, None),
        ({"dead": 0.6}, "60% of the features' dimensions"),
    ],
)
def test_the_alarm(change: dict, words: str | None) -> None:
    said = Health(**{**GOOD, **change}).alarm()
    assert (said is None) if words is None else (words in said)
