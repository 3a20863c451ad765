# SPDX-License-Identifier: MIT
"""Focal NT-Xent against a nested-loop oracle, the official code's numbers and wrong variants."""

import math

import pytest
import torch
import torch.nn.functional as F

from ltplugins.core.errors import UserError
from ltplugins.losses import focal
from ltplugins.losses.focal import focal_loss, focal_terms, focal_weight
from ltplugins.losses.terms.bases import nt_xent

OPTIONS = {"temperature": 0.2, "gamma": 2.0}


def focal_nt_xent(*args, **kwargs):
    return focal.focal_nt_xent(*args, **kwargs).loss


def random_pairs(n=12, dim=5, seed=0, noise=0.7, dtype=torch.float64):
    """Both views of n images, and their ids."""
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(n, dim, generator=g, dtype=torch.float64)
    v = u + noise * torch.randn(n, dim, generator=g, dtype=torch.float64)
    return torch.cat([u, v]).to(dtype), torch.arange(n).repeat(2)


def oracle(z, ids, temperature, gamma):
    """Python floats, term by term."""
    rows, ids, losses = z.tolist(), ids.tolist(), []
    for a, x in enumerate(rows):
        positive = negative = 0.0
        for b, y in enumerate(rows):
            if a == b:
                continue
            dot = sum(i * j for i, j in zip(x, y, strict=True))
            weight = math.exp(dot / math.hypot(*x) / math.hypot(*y) / temperature)
            if ids[a] == ids[b]:
                positive += weight
            else:
                negative += weight
        if positive:
            p = positive / (positive + negative)
            losses.append(-((1 - p) ** gamma) * math.log(p))
    return sum(losses) / len(losses) if losses else 0.0


def test_by_hand():
    """Two images on two axes, views equal: p = e / (e + 2) for every anchor."""
    z, ids = torch.eye(2).repeat(2, 1).double(), torch.tensor([0, 1, 0, 1])
    p = math.e / (math.e + 2)
    loss = focal_nt_xent(z, ids, temperature=1.0, gamma=2.0)
    assert loss.item() == pytest.approx(-((1 - p) ** 2) * math.log(p))
    assert loss.item() == pytest.approx(0.0990819, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_the_oracle(seed, gamma):
    z, ids = random_pairs(seed=seed)
    loss = focal_nt_xent(z, ids, temperature=0.3, gamma=gamma)
    assert loss.item() == pytest.approx(oracle(z, ids, 0.3, gamma), rel=1e-10)


def test_ids_in_threes_and_alone_equal_the_oracle():
    z, _ = random_pairs(4)
    ids = torch.tensor([0, 0, 1, 2, 0, 3, 1, 4])
    loss = focal_nt_xent(z, ids, **OPTIONS)
    assert loss.item() == pytest.approx(oracle(z, ids, **OPTIONS), rel=1e-10)


def test_oracle_rejects_wrong_variants():
    z, ids = random_pairs()
    right = oracle(z, ids, **OPTIONS)
    n = len(z)
    a = (F.normalize(z, dim=1) @ F.normalize(z, dim=1).T / 0.2).exp()
    positive = a.gather(1, torch.arange(n).roll(n // 2)[:, None])[:, 0]
    negative = a.sum(1) - a.diagonal() - positive

    def loss(p, weight=None):
        return -((1 - p) ** 2 if weight is None else weight).mul(p.log()).mean().item()

    p = positive / (positive + negative)
    assert loss(p) == pytest.approx(right)
    half = a[:, : n // 2].sum(1) - a.diagonal() * (torch.arange(n) < n // 2)
    wrong = [
        loss(p, weight=p**2),  # the weight of the easy, not of the hard
        loss(p, weight=torch.ones(n)),  # no weight
        loss(positive / (positive + negative + a.diagonal())),  # itself as a negative
        loss(positive / (positive + half)),  # half the negatives
        loss(p, weight=(1 - p.mean()) ** 2),  # one weight for all
        oracle(z, ids, 1.0, 2.0),  # no temperature
        oracle(z, ids, 0.2, 1.0),  # another gamma
    ]
    for variant in wrong:
        assert abs(variant - right) > 1e-3


@pytest.mark.parametrize(
    ("temperature", "gamma", "expected"),
    [
        (0.2, 2.0, 1.0501443094209384),
        (0.5, 2.0, 3.0878701600800085),
        (0.2, 1.0, 1.3005934946160531),
        (0.2, 0.5, 1.4499613885787423),
        (0.2, 0.0, 1.6184289545785921),  # nt_xent
    ],
)
def test_numbers_of_the_official_code(temperature, gamma, expected):
    """``focal_nt_xent`` of ``utils.py`` at 9f7057c, run in float64 on these pairs."""
    z, ids = random_pairs(64, 16, seed=7)
    loss = focal_nt_xent(z, ids, temperature=temperature, gamma=gamma)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0])
def test_gamma_zero_is_nt_xent_in_value_and_gradient(temperature):
    z, ids = random_pairs(seed=3)
    ids[5] = 99  # an anchor without a positive
    grads = []
    for loss_of in (
        lambda x: focal_nt_xent(x, ids, temperature=temperature, gamma=0.0),
        lambda x: nt_xent(x, ids, temperature),
    ):
        x = z.clone().requires_grad_()
        loss = loss_of(x)
        loss.backward()
        grads.append((loss.detach(), x.grad))
    torch.testing.assert_close(grads[0], grads[1])


def test_gradient_goes_through_the_weight_unless_told_not_to():
    z, ids = random_pairs(6)
    inputs = z.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: focal_nt_xent(x, ids, **OPTIONS), (inputs,))
    grads = []
    for detach in (False, True):
        x = z.clone().requires_grad_()
        loss = focal_nt_xent(x, ids, **OPTIONS, detach_weight=detach)
        loss.backward()
        grads.append(x.grad)
    assert (grads[0] - grads[1]).abs().max() > 1e-3
    # With the weight held fixed the gradient is that of a weighted NT-Xent.
    x = z.clone().requires_grad_()
    terms = focal_terms(x, ids, x, ids, temperature=0.2, offset=0)
    focal_loss(terms, focal_weight(terms, 2.0).detach()).backward()
    torch.testing.assert_close(grads[1], x.grad)


def test_local_anchors_against_all_candidates():
    """Two ranks' anchors, their rows of the whole: together the mean of the whole."""
    z, ids = random_pairs(10)
    whole = focal_nt_xent(z, ids, **OPTIONS)
    parts = [
        focal_nt_xent(z[rows], ids[rows], **OPTIONS, all_z=z, all_ids=ids, offset=rows.start)
        for rows in (slice(0, 14), slice(14, 20))
    ]
    torch.testing.assert_close((14 * parts[0] + 6 * parts[1]) / 20, whole)


def test_scale_and_order_do_not_matter():
    z, ids = random_pairs()
    loss = focal_nt_xent(z, ids, **OPTIONS)
    scales = torch.rand(len(z), 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(focal_nt_xent(z * scales, ids, **OPTIONS), loss)
    order = torch.randperm(len(z))
    torch.testing.assert_close(focal_nt_xent(z[order], ids[order], **OPTIONS), loss)


def test_perfect_anchors_cost_nothing_and_hard_ones_nearly_all():
    z, ids = torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
    assert focal_nt_xent(z, ids, temperature=0.01, gamma=2.0) == 0
    hard = torch.cat([torch.eye(4), torch.eye(4).roll(1, 0)])
    plain, hard_focused = (focal_nt_xent(hard, ids, temperature=0.1, gamma=g) for g in (0.0, 2.0))
    assert 0.99 * plain < hard_focused < plain


@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_low_temperature(dtype, temperature):
    z, ids = random_pairs(32, 16, dtype=dtype)
    options = {"temperature": temperature, "gamma": 2.0}
    full = focal_nt_xent(z.float(), ids, **options)
    leaf = z.clone().requires_grad_()
    loss = focal_nt_xent(leaf, ids, **options)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(leaf.grad).all()
    torch.testing.assert_close(loss, full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(focal_nt_xent(z.float(), ids, **options), full)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize(
    "z", [torch.ones(8, 4), torch.zeros(8, 4), torch.ones(2, 4), torch.ones(1, 4)]
)
def test_collapse_zero_vectors_and_a_batch_of_one_are_finite(z, temperature, gamma):
    """Two views of one image have no negatives; a single row has no positive either."""
    ids = torch.arange(max(1, len(z) // 2)).repeat(2)[: len(z)]
    leaf = z.clone().requires_grad_()
    loss = focal_nt_xent(leaf, ids, temperature=temperature, gamma=gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(leaf.grad).all()
    if len(z) <= 2:
        assert loss == 0


def test_frozen_value():
    """The same number on every version; change it only with a line in the changelog."""
    z, ids = random_pairs(64, 16, seed=7)
    assert focal_nt_xent(z, ids, **OPTIONS).item() == pytest.approx(1.0501443094209384, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": 0.0, "gamma": 2.0}, "temperature: expected a number above 0, got 0.0"),
        ({"temperature": 0.2, "gamma": -1.0}, "gamma: expected 0 or more, got -1.0"),
    ],
)
def test_bad_input_is_named(options, text):
    with pytest.raises(UserError, match=text):
        focal_nt_xent(*random_pairs(), **options)
