# SPDX-License-Identifier: MIT
"""MTTV's filtered loss against the spec's corrected numbers, a nested-loop oracle, wrong variants.

The spec's "corrected" values exclude the diagonal explicitly; the official CIFAR variant gives NaN
on the same four vectors.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from ltplugins.core.errors import UserError
from ltplugins.losses.mttv import (
    filtered_log_probs,
    fuse,
    in_band,
    reduce_log_probs,
)


def filtered_contrastive_loss(u, v, *, reduction="log_mean", **options):
    """Both steps, as one process takes them."""
    probs = filtered_log_probs(u, v, **options)
    return reduce_log_probs(probs.log_p, probs.has_positive, reduction)


OFFICIAL = {"temperature": 0.3, "lower": 0.1, "upper": 0.9}
PLAIN = {"temperature": 0.3, "lower": 0.0, "upper": 2.0}


def at_degrees(*angles):
    """Unit vectors in the plane."""
    radians = torch.tensor(angles, dtype=torch.float64) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


# The spec's pairs (0, 1) and (2, 3) at 0, 40, 100 and 150 degrees.
U, V = at_degrees(0, 100), at_degrees(40, 150)


def random_pairs(n=12, dim=5, seed=0, noise=0.7):
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(n, dim, generator=g, dtype=torch.float64)
    return u, u + noise * torch.randn(n, dim, generator=g, dtype=torch.float64)


def oracle_probs(u, v, temperature, lower, upper, filter_positives=True):
    """Steps 5-7 with Python floats: p of every anchor, None where its positive is dropped."""
    e = [*u.tolist(), *v.tolist()]
    n, probs = len(u), []
    for a in range(2 * n):
        partner, numerator, denominator = (a + n) % (2 * n), 0.0, 0.0
        for b in range(2 * n):
            if a == b:
                continue
            dot = sum(x * y for x, y in zip(e[a], e[b], strict=True))
            cos = dot / math.hypot(*e[a]) / math.hypot(*e[b])
            kept = lower <= abs(cos) <= upper or (b == partner and not filter_positives)
            weight = math.exp(cos / temperature) if kept else 0.0
            denominator += weight
            numerator += weight if b == partner else 0.0
        probs.append(numerator / denominator if numerator else None)
    return probs


def oracle_loss(u, v, temperature, lower, upper, reduction="log_mean", filter_positives=True):
    probs = oracle_probs(u, v, temperature, lower, upper, filter_positives)
    kept = [p for p in probs if p is not None]
    if not kept:
        return 0.0
    if reduction == "log_mean":
        return -math.log(sum(kept) / len(probs))
    return -sum(map(math.log, kept)) / len(kept)


def test_worked_example_of_the_spec():
    probs = filtered_log_probs(U, V, **OFFICIAL)
    # Anchors in the order u_0, u_1, v_0, v_1; the spec's are interleaved.
    expected = torch.tensor([0.954239, 0.592744, 0.695967, 0.957790], dtype=torch.float64)
    torch.testing.assert_close(probs.log_p.exp(), expected, atol=1e-6, rtol=0)
    assert probs.has_positive.all()
    assert probs.dropped == 0  # only the diagonal exceeds .9, and it is no entry
    assert filtered_contrastive_loss(U, V, **OFFICIAL).item() == pytest.approx(0.222912, abs=1e-6)
    mean_log = filtered_contrastive_loss(U, V, **OFFICIAL, reduction="mean_log")
    assert mean_log.item() == pytest.approx(0.243853, abs=1e-6)


def test_by_hand_with_two_entries_dropped():
    # Two pairs at 0/60 and 90/30 degrees: the cosines of 0 and 90 degrees (0) and of 60 and 30
    # (.866) fall out of [.1, .8], so every anchor keeps its positive at .5 and, of the rest, 0-30
    # and 60-90, both .866, fall out too. Each positive is alone: p = 1.
    u, v = at_degrees(0, 90), at_degrees(60, 30)
    loss = filtered_contrastive_loss(u, v, temperature=0.3, lower=0.1, upper=0.8)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    # With the band up to .9 each anchor keeps one negative at .866 beside its positive at .5; the
    # two negatives of u_0 are 30 degrees (kept) and 90 degrees (dropped).
    share = 1 / (1 + math.exp((math.sqrt(3) / 2 - 0.5) / 0.3))
    probs = filtered_log_probs(u, v, **OFFICIAL)
    assert probs.log_p[0].exp().item() == pytest.approx(share)


@pytest.mark.parametrize("reduction", ["log_mean", "mean_log"])
@pytest.mark.parametrize("filter_positives", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_the_oracle(seed, filter_positives, reduction):
    u, v = random_pairs(seed=seed)
    options = {**OFFICIAL, "reduction": reduction, "filter_positives": filter_positives}
    probs = oracle_probs(u, v, 0.3, 0.1, 0.9)
    assert None in probs  # a positive is dropped: the case that must stay finite
    loss = filtered_contrastive_loss(u, v, **options)
    assert loss.item() == pytest.approx(oracle_loss(u, v, **options), rel=1e-10)


def test_oracle_rejects_wrong_variants():
    u, v = random_pairs()
    right = oracle_loss(u, v, **OFFICIAL)
    e = F.normalize(torch.cat([u, v]), dim=1)
    s, n = e @ e.T, len(u)
    keep = in_band(s, 0.1, 0.9)
    partner = torch.arange(2 * n).roll(n)
    a = (s / 0.3).exp()

    def loss(weights, denominator):
        return -(weights.gather(1, partner[:, None])[:, 0] / denominator).mean().log()

    banded = a * keep
    no_self = banded - torch.diag(banded.diagonal())
    wrong = [
        loss(banded, banded.sum(1) - math.exp(1 / 0.3)),  # the official double subtraction
        loss(a, (a - torch.diag(a.diagonal())).sum(1)),  # no filter
        loss(banded, no_self.sum(1) + a.diagonal()),  # itself as a negative
        loss(no_self, no_self[:, :n].sum(1) + banded[:, n:].gather(1, partner[:, None] % n)[:, 0]),
        torch.tensor(oracle_loss(u, v, 1.0, 0.1, 0.9)),  # no temperature
        torch.tensor(oracle_loss(u, v, 0.3, 0.1, 0.9, reduction="mean_log")),
    ]
    assert loss(banded, no_self.sum(1)).item() == pytest.approx(right)
    for variant in wrong:
        assert not abs(variant.item() - right) < 1e-2


def test_without_a_filter_it_is_the_plain_loss():
    u, v = random_pairs()
    e = F.normalize(torch.cat([u, v]), dim=1)
    logits = (e @ e.T / 0.3).fill_diagonal_(-torch.inf)
    target = torch.arange(24).roll(12)
    mean_log = filtered_contrastive_loss(u, v, **PLAIN, reduction="mean_log")
    torch.testing.assert_close(mean_log, F.cross_entropy(logits, target))
    p = logits.softmax(1).gather(1, target[:, None])
    torch.testing.assert_close(filtered_contrastive_loss(u, v, **PLAIN), -p.mean().log())


def test_upper_one_keeps_equal_vectors():
    # float32 makes some cosines of a vector with itself 1.0000001.
    u = torch.randn(64, 7, generator=torch.Generator().manual_seed(0))
    probs = filtered_log_probs(u, u, temperature=0.3, lower=0, upper=1)
    assert probs.has_positive.all()


def test_scale_and_roles_do_not_matter():
    u, v = random_pairs()
    loss = filtered_contrastive_loss(u, v, **OFFICIAL)
    scales = torch.rand(12, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(filtered_contrastive_loss(u * scales, 37 * v, **OFFICIAL), loss)
    torch.testing.assert_close(filtered_contrastive_loss(v, u, **OFFICIAL), loss)
    order = torch.randperm(12)
    torch.testing.assert_close(filtered_contrastive_loss(u[order], v[order], **OFFICIAL), loss)


@pytest.mark.parametrize("reduction", ["log_mean", "mean_log"])
def test_all_positives_dropped_is_zero_without_gradient(reduction):
    u = at_degrees(0, 90).requires_grad_()
    loss = filtered_contrastive_loss(u, at_degrees(5, 95), **OFFICIAL, reduction=reduction)
    loss.backward()
    assert loss == 0
    assert torch.equal(u.grad, torch.zeros_like(u))


def test_a_dropped_positive_counts_as_share_zero_and_does_not_pull():
    # Pair 0 at 0/5 degrees is too similar, pair 1 at 60/100 is kept.
    u, v = at_degrees(0, 60).requires_grad_(), at_degrees(5, 100)
    loss = filtered_contrastive_loss(u, v, **OFFICIAL)
    kept = [p for p in oracle_probs(u.detach(), v, **OFFICIAL) if p is not None]
    assert len(kept) == 2
    assert loss.item() == pytest.approx(-math.log(sum(kept) / 4))
    loss.backward()
    # With pair 1 (45 degrees) alone in the band nothing repels u_0, and nothing pulls it either.
    blind = at_degrees(0, 60).requires_grad_()
    other = at_degrees(5, 105)
    band = {"temperature": 0.3, "lower": 0.6, "upper": 0.9}
    filtered_contrastive_loss(blind, other, **band).backward()
    assert torch.equal(blind.grad[0], torch.zeros(2, dtype=torch.float64))


def test_widening_the_band_never_drops_more():
    u, v = random_pairs(32)
    shares = [
        filtered_log_probs(u, v, temperature=0.3, lower=low, upper=high).dropped.item()
        for low, high in [(0.4, 0.6), (0.3, 0.6), (0.3, 0.9), (0.1, 0.9), (0.0, 1.0)]
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5
    assert shares[-1] == 0


def test_gradient_reaches_u_through_anchors_and_candidates():
    u, v = random_pairs(6)
    keys = v.clone()  # detached, as the momentum network's are
    inputs = u.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: filtered_contrastive_loss(x, keys, **OFFICIAL), (inputs,), atol=1e-7
    )


@pytest.mark.parametrize("temperature", [0.01, 0.3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_low_temperature(dtype, temperature):
    u, v = (x.float() for x in random_pairs(32, 16))
    options = {**OFFICIAL, "temperature": temperature, "lower": 0.0, "upper": 1.0}
    full = filtered_contrastive_loss(u, v, **options)
    leaf = u.to(dtype).requires_grad_()
    half = filtered_contrastive_loss(leaf, v.to(dtype), **options)
    half.backward()
    assert half.dtype == torch.float32
    assert torch.isfinite(leaf.grad).all()
    torch.testing.assert_close(half, full, rtol=5e-2, atol=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(filtered_contrastive_loss(u, v, **options), full)


@pytest.mark.parametrize("bounds", [(0.1, 0.9), (0.0, 1.0)])
@pytest.mark.parametrize("start", [torch.ones(8, 4), torch.zeros(8, 4), torch.ones(1, 4)])
def test_collapse_zero_vectors_and_a_batch_of_one_are_finite(start, bounds):
    u = start.clone().requires_grad_()
    loss = filtered_contrastive_loss(u, start, temperature=0.3, lower=bounds[0], upper=bounds[1])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(u.grad).all()


@pytest.mark.parametrize(
    ("temperature", "lower", "upper", "expected"),
    [
        (0.5, 0.0, 1.0, 3.315205067942443),  # xent_loss
        (0.3, 0.1, 1.0, 2.2270477576743786),  # Our_xent_loss with the mask it prefers for ImageNet
    ],
)
def test_numbers_of_the_official_code(temperature, lower, upper, expected):
    """``Loss/loss.py`` at 247efd5, run in float64 on these pairs; its exp(1/t) is in float32."""
    u, v = random_pairs(64, 16, seed=7)
    loss = filtered_contrastive_loss(u, v, temperature=temperature, lower=lower, upper=upper)
    assert loss.item() == pytest.approx(expected, abs=1e-7)


def test_the_official_cifar_mask_but_not_its_double_subtraction():
    """There: 4878 entries dropped with the 128 of the diagonal, and a loss of 2.302620."""
    u, v = random_pairs(64, 16, seed=7)
    probs = filtered_log_probs(u, v, **OFFICIAL)
    assert round(probs.dropped.item() * 128 * 127) == 4878 - 128
    e = F.normalize(torch.cat([u, v]), dim=1)
    weights = (e @ e.T / 0.3).exp() * in_band(e @ e.T, 0.1, 0.9)
    weights.fill_diagonal_(0.0)
    p = weights.gather(1, torch.arange(128).roll(64)[:, None])[:, 0] / (
        weights.sum(1) - math.exp(1 / 0.3)
    )
    assert -p.mean().log().item() == pytest.approx(2.302620090197559, abs=1e-6)
    assert filtered_contrastive_loss(u, v, **OFFICIAL) > 2.5


def test_frozen_value():
    """The same number on every version; change it only with a line in the changelog."""
    u, v = random_pairs(64, 16, seed=7)
    loss = filtered_contrastive_loss(u, v, **OFFICIAL).item()
    assert loss == pytest.approx(2.5153572384942016, abs=1e-9)


def test_parts_of_a_batch_are_the_rows_of_the_whole():
    """A rank's anchors against all ranks' candidates; a wrong offset is another number."""
    u, v = random_pairs(12)
    whole = filtered_log_probs(u, v, **OFFICIAL)
    rows = slice(5, 9)

    def part(offset):
        return filtered_log_probs(u[rows], v[rows], all_u=u, all_v=v, offset=offset, **OFFICIAL)

    for of_part, of_whole in zip(part(5)[:2], whole[:2], strict=True):
        parts = torch.cat([of_whole[5:9], of_whole[17:21]])
        torch.testing.assert_close(of_part, parts)
    assert not torch.allclose(part(4).log_p, part(5).log_p)


def test_fusion():
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]])
    assert fuse(a, b).tolist() == [[11.0, 22.0]]
    assert fuse(a, b, concat=True).tolist() == [[1.0, 2.0, 10.0, 20.0]]
    assert fuse(a.bfloat16(), b.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: filtered_contrastive_loss(U, V[:1], **OFFICIAL), r"\(2, 2\) and \(1, 2\)"),
        (lambda: filtered_contrastive_loss(U[:0], V[:0], **OFFICIAL), "N >= 1"),
        (lambda: filtered_contrastive_loss(U, V, **{**OFFICIAL, "temperature": 0}), "above 0"),
        (lambda: filtered_contrastive_loss(U, V, **{**OFFICIAL, "lower": 0.9}), "lower < upper"),
        (lambda: reduce_log_probs(U[0], U[0] > 9, "meanlog"), "Did you mean 'mean_log'"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(UserError, match=text):
        call()
