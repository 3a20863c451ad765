# SPDX-License-Identifier: MIT
"""What ``sinkhorn`` promises, against a slow log-space oracle in float64: any prior, any length.

The rest of its tests, on problems as GH makes them, are in ``tests/losses/test_gh.py``.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from ltplugins.losses.terms.sinkhorn import sinkhorn

PROMISED = 6e-5
SKEWED = torch.tensor([[1.0, 0.0], [-0.6, 0.8]]), torch.tensor([1.0, 1e-5])


def oracle(logits, prior, epsilon, num_iters):
    """Every step by log-sum-exp in float64, none left out."""
    scores, prior = logits.double() / epsilon, prior.double()
    log_prior = (prior / prior.sum()).log()
    rows = torch.zeros_like(scores[:, :1])
    for _ in range(num_iters):
        cols = log_prior - torch.logsumexp(scores + rows, dim=0)
        rows = -torch.logsumexp(scores + cols, dim=1, keepdim=True) - math.log(len(scores))
    return torch.softmax(scores + cols, dim=1)


def logits_of(kind, batch, directions, g):
    """Spread out; near few directions, as after training; nearly apart; many alike."""
    noise = torch.randn(batch, directions, generator=g)
    if kind == "spread":
        return F.normalize(noise, dim=1)
    if kind == "crowded":
        shares = 100.0 ** -torch.linspace(0, 1, directions)
        nearest = torch.multinomial(shares, batch, True, generator=g)
        return F.normalize(0.6 * F.one_hot(nearest, directions) + 0.1 * noise, dim=1)
    if kind == "apart":
        nearest = F.one_hot(torch.arange(batch) % directions, directions)
        return F.normalize(nearest + 0.02 * noise, dim=1)
    return F.normalize(noise[:2], dim=1)[torch.randint(2, (batch,), generator=g)]


def priors(logits, g):
    """One tiny entry; all sizes down to 1e-7; zeros; almost what the logits say by themselves."""
    directions = logits.shape[1]
    one = torch.ones(directions)
    one[0] = 1e-7
    sizes = 10.0 ** (-7 * torch.rand(directions, generator=g))
    zeros = torch.rand(directions, generator=g) + 0.1
    zeros[::2] = 0
    counts = logits.argmax(dim=1).bincount(minlength=directions) + 1e-3
    return one, sizes, zeros, counts * (1 + 0.01 * torch.rand(directions, generator=g))


def worst(form, problems):
    """The largest error of a form of Sinkhorn over the problems."""
    errors = [(form(*p).double() - oracle(*p)).abs().max() for p in problems]
    return float(torch.stack(errors).nan_to_num(torch.inf).max())


def ours(logits, prior, epsilon, num_iters):
    return sinkhorn(logits, prior, epsilon=epsilon, num_iters=num_iters)


def grid():
    """Problems of every kind and prior; sizes, epsilons and lengths take turns."""
    g = torch.Generator().manual_seed(0)
    sizes = itertools.cycle([(2, 2), (5, 3), (24, 6), (48, 16), (3, 24)])
    epsilons = itertools.cycle([0.01, 0.02, 0.05, 0.01, 0.1, 0.03, 1.0])
    lengths = itertools.cycle([1, 2, 3, 8, 12, 15, 19, 22, 60, 180, 300])
    for kind in ("spread", "crowded", "apart", "alike") * 8:
        logits = logits_of(kind, *next(sizes), g)
        for prior in priors(logits, g):
            yield logits, prior, next(epsilons), next(lengths)


def test_a_tiny_prior_at_a_small_epsilon():
    """The second image must be let go of by a direction that has room for nearly all."""
    q = sinkhorn(*SKEWED, epsilon=0.01, num_iters=300)
    expected = torch.tensor([[1.0, 0.0], [0.99998, 0.00002]])
    torch.testing.assert_close(q, expected, atol=1e-6, rtol=0)
    assert worst(ours, [(*SKEWED, 0.01, num_iters) for num_iters in range(1, 24)]) < PROMISED


def test_the_promise_on_a_grid():
    assert worst(ours, grid()) < PROMISED


@pytest.mark.parametrize(
    ("batch", "directions", "num_iters"), [(2048, 20, 30), (2, 500, 300), (256, 100, 200)]
)
@pytest.mark.parametrize("kind", ["crowded", "apart"])
def test_the_promise_at_large_sizes(batch, directions, num_iters, kind):
    g = torch.Generator().manual_seed(1)
    logits = logits_of(kind, batch, directions, g)
    _, sizes, _, counts = priors(logits, g)
    problems = [(logits, sizes, 0.01, num_iters // 3), (logits, counts, 0.05, num_iters)]
    assert worst(ours, problems) < PROMISED


def test_a_problem_that_takes_thousands_of_pairs():
    g = torch.Generator().manual_seed(2)
    logits, prior = logits_of("apart", 16, 4, g), torch.linspace(0.9, 1.1, 4)
    problems = [(logits, prior, 0.02, n) for n in (501, 3000)]
    assert (oracle(*problems[0]) - oracle(*problems[1])).abs().max() > 0.01
    assert worst(ours, problems) < PROMISED


def test_longer_pairs_do_not_overtake_the_plain_ones():
    """A drift at a steady pace: over-relaxed pairs would be through before 180 plain ones are."""
    hundredths = (
        "73 145 113 186 11 158 103 131 -90 -7 109 79 208 242 -80 -49 132 151 -76 81 105 64 238 199"
    )
    angles = torch.tensor([int(angle) / 100 for angle in hundredths.split()])
    logits = torch.stack([angles.cos(), angles.sin()], dim=1)
    for share in torch.linspace(10.9, 11.1, 5):
        prior = torch.stack([share, 24.1 - share])
        assert worst(ours, [(logits, prior, 0.02, 180)]) < PROMISED


def clamped(logits, prior, epsilon, num_iters):
    """Plain scalings on a kernel whose underflowed entries are the smallest number."""
    tiny = torch.finfo(torch.float32).tiny
    kernel = torch.softmax(logits / epsilon, dim=1).clamp(min=tiny)
    rows = torch.ones(len(kernel))
    for _ in range(num_iters):
        cols = prior / prior.sum() * len(kernel) / (kernel.T @ rows)
        rows = 1 / (kernel @ cols)
    return rows[:, None] * kernel * cols


def half_as_long(logits, prior, epsilon, num_iters):
    return ours(logits, prior, epsilon, -(-num_iters // 2))


def floored(logits, prior, epsilon, num_iters):
    return ours(logits, (prior / prior.sum()).clamp(min=1e-4), epsilon, num_iters)


@pytest.mark.parametrize("wrong", [clamped, half_as_long, floored])
def test_wrong_variants_are_rejected(wrong):
    assert worst(wrong, itertools.islice(grid(), 24)) > 0.01


def test_nan_stays_nan_and_half_precision_is_widened():
    q = sinkhorn(torch.tensor([[1.0, torch.nan], [0.2, 0.3]]), torch.tensor([0.5, 0.5]))
    assert q.isnan().any()
    half = sinkhorn(SKEWED[0].half(), SKEWED[1], epsilon=0.01, num_iters=1000)
    assert half.dtype == torch.float32
    assert half[1, 0] > 0.9999
