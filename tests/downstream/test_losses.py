# SPDX-License-Identifier: MIT
"""Losses of long-tailed classifiers against slow oracles, values by hand and wrong variants."""

import math

import pytest
import torch
import torch.nn.functional as F

from ltplugins.downstream.losses import (
    effective_weights,
    focal_cross_entropy,
    ldam_loss,
    ldam_margins,
    logit_adjusted_loss,
    post_hoc_adjusted,
)

COUNTS = torch.tensor([100, 20, 5, 1])


def batch(seed=0, n=6, classes=4, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=g, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (n,), generator=g)


def shares(row, factors):
    """The softmax of a row whose exponentials are multiplied by factors, in Python floats."""
    parts = [math.exp(x) * f for x, f in zip(row, factors, strict=True)]
    return [part / sum(parts) for part in parts]


def adjusted_oracle(logits, targets, counts, tau):
    total = sum(counts.tolist())
    factors = [(n / total) ** tau for n in counts.tolist()]
    rows = zip(logits.tolist(), targets.tolist(), strict=True)
    losses = [-math.log(shares(row, factors)[y]) for row, y in rows]
    return sum(losses) / len(losses)


def ldam_oracle(logits, targets, counts, largest, scale, weights):
    margins = [n**-0.25 for n in counts.tolist()]
    margins = [m * largest / max(margins) for m in margins]
    total = above = 0.0
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        own = [x - scale * margins[y] * (c == y) for c, x in enumerate(row)]
        above -= weights[y] * math.log(shares(own, [1.0] * len(row))[y])
        total += weights[y]
    return above / total


def focal_oracle(logits, targets, gamma):
    losses = []
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        p = shares(row, [1.0] * len(row))[y]
        losses.append(-((1 - p) ** gamma) * math.log(p))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_logit_adjustment_equals_the_oracle(seed, tau):
    logits, targets = batch(seed)
    loss = logit_adjusted_loss(logits, targets, COUNTS, tau=tau)
    assert loss.item() == pytest.approx(adjusted_oracle(logits, targets, COUNTS, tau), rel=1e-10)


def test_at_tau_1_it_is_the_balanced_softmax():
    """Ren et al.: p_j = n_j exp(z_j) / sum of n_i exp(z_i), of counts, not of shares."""
    logits, targets = batch()
    own = logits.exp()[torch.arange(6), targets] * COUNTS[targets]
    balanced = -(own / (COUNTS * logits.exp()).sum(dim=1)).log().mean()
    torch.testing.assert_close(logit_adjusted_loss(logits, targets, COUNTS, tau=1.0), balanced)


def test_the_oracle_rejects_wrong_adjustments():
    logits, targets = batch()
    right = adjusted_oracle(logits, targets, COUNTS, 0.5)
    prior = (COUNTS / COUNTS.sum()).double()
    for wrong in (
        F.cross_entropy(logits, targets),  # none
        F.cross_entropy(logits - 0.5 * prior.log(), targets),  # that of a finished classifier
        F.cross_entropy(logits + prior.log(), targets),  # without tau
        F.cross_entropy(logits + 0.5 * prior, targets),  # without the logarithm
    ):
        assert wrong.item() != pytest.approx(right, rel=1e-3)


def test_after_the_fact_it_undoes_the_prior():
    logits, _ = batch()
    prior = COUNTS.double() / COUNTS.sum()
    torch.testing.assert_close(
        post_hoc_adjusted(logits + 1.5 * prior.log(), COUNTS, tau=1.5), logits
    )


def test_a_class_without_images_is_never_predicted_and_has_no_share():
    counts = torch.tensor([10, 0, 5])
    logits = torch.tensor([[0.0, 50.0, 1.0]], requires_grad=True)
    loss = logit_adjusted_loss(logits, torch.tensor([2]), counts, tau=1.0)
    loss.backward()
    two = torch.tensor([[0.0, 1.0]])
    expected = logit_adjusted_loss(two, torch.tensor([1]), torch.tensor([10, 5]), tau=1.0)
    torch.testing.assert_close(loss, expected)
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0 and torch.isfinite(logits.grad).all()
    assert post_hoc_adjusted(logits, counts, tau=1.0).argmax() == 2


def test_mixed_images_lie_between_their_two():
    logits, targets = batch()
    other = targets.roll(1)
    shares_of = 0.3 * F.one_hot(targets, 4) + 0.7 * F.one_hot(other, 4)
    mixed = logit_adjusted_loss(logits, shares_of.double(), COUNTS, tau=1.0)
    parts = [logit_adjusted_loss(logits, t, COUNTS, tau=1.0) for t in (targets, other)]
    torch.testing.assert_close(mixed, 0.3 * parts[0] + 0.7 * parts[1])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
def test_ldam_equals_the_oracle(weighted, seed):
    logits, targets = batch(seed)
    weight = effective_weights(COUNTS, 0.99).double() if weighted else None
    margins = ldam_margins(COUNTS, 0.5).double()
    loss = ldam_loss(logits, targets, margins, scale=3.0, weight=weight)
    weights = [1.0] * 4 if weight is None else weight.tolist()
    expected = ldam_oracle(logits, targets, COUNTS, 0.5, 3.0, weights)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_oracle_rejects_wrong_margins():
    logits, targets = batch()
    right = ldam_oracle(logits, targets, COUNTS, 0.5, 3.0, [1.0] * 4)
    margins = ldam_margins(COUNTS, 0.5).double()
    own = F.one_hot(targets, 4)
    for wrong in (
        F.cross_entropy(logits, targets),  # none
        F.cross_entropy(logits + 3 * margins * own, targets),  # easier instead of harder
        F.cross_entropy(logits - margins * own, targets),  # not scaled
        F.cross_entropy(logits - 3 * margins, targets),  # from all classes
        F.cross_entropy(logits - 3 * ldam_margins(COUNTS**2, 0.5) * own, targets),  # n^(-1/2)
    ):
        assert wrong.item() != pytest.approx(right, rel=1e-3)


def test_margins_and_weights_by_hand():
    assert ldam_margins(torch.tensor([16, 81, 1]), 0.6).tolist() == pytest.approx([0.3, 0.2, 0.6])
    # Effective numbers 1 + .5 = 1.5 and 1: their reciprocals 2/3 and 1, with mean 1.
    assert effective_weights(torch.tensor([2, 1]), 0.5).tolist() == pytest.approx([0.8, 1.2])
    assert effective_weights(torch.tensor([2, 0, 1]), 0.5).tolist() == pytest.approx([0.8, 0, 1.2])
    assert effective_weights(COUNTS, 1 - 1e-9).mul(COUNTS).std().item() < 1e-3  # like 1 / n


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_focal_equals_the_oracle(seed, gamma):
    logits, targets = batch(seed)
    loss = focal_cross_entropy(logits, targets, gamma=gamma)
    assert loss.item() == pytest.approx(focal_oracle(logits, targets, gamma), rel=1e-10)
    if gamma == 0:
        torch.testing.assert_close(loss, F.cross_entropy(logits, targets))


def test_the_oracle_rejects_wrong_weights():
    logits, targets = batch()
    right = focal_oracle(logits, targets, 2.0)
    log_p = F.log_softmax(logits, dim=1).gather(1, targets[:, None])[:, 0]
    p = log_p.exp()
    for wrong in (
        F.cross_entropy(logits, targets),  # none
        -(p**2 * log_p).mean(),  # of the easy ones
        -((1 - p) * log_p).mean(),  # without gamma
        -((1 - p) ** 2 * log_p).sum() / ((1 - p) ** 2).sum(),  # a weighted mean
    ):
        assert wrong.item() != pytest.approx(right, rel=1e-3)


LOSSES = {
    "adjusted": lambda x, y: logit_adjusted_loss(x, y, COUNTS, tau=1.0),
    "ldam": lambda x, y: ldam_loss(x, y, ldam_margins(COUNTS, 0.5), scale=30.0),
    "focal": lambda x, y: focal_cross_entropy(x, y, gamma=2.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_finite_at_extremes(name, dtype):
    for value in (-200.0, 0.0, 200.0):
        logits = torch.tensor([[value, 0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
        for target in (0, 3):
            loss = LOSSES[name](logits, torch.tensor([target]))
            loss.backward()
            assert loss.dtype is torch.float32 and torch.isfinite(loss)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_permutation_of_the_images_changes_nothing(name):
    logits, targets = batch(dtype=torch.float32)
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    torch.testing.assert_close(
        LOSSES[name](logits, targets), LOSSES[name](logits[order], targets[order])
    )
