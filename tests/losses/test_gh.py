# SPDX-License-Identifier: MIT
"""GH's terms against the spec's worked numbers, a nested-loop oracle and wrong variants."""

import math

import pytest
import torch
import torch.nn.functional as F

from ltplugins.core.errors import UserError
from ltplugins.losses.gh import (
    direction_counts,
    geometric_logits,
    gh_loss,
    prior_from_counts,
    ramp_weight,
    simplex_etf,
)
from ltplugins.losses.terms import sinkhorn as sinkhorn_module
from ltplugins.losses.terms.memory import update_memory
from ltplugins.losses.terms.sinkhorn import sinkhorn

T1 = F.normalize(
    torch.tensor(
        [[0.9, 0.1, -0.2], [0.8, 0.2, 0.0], [0.7, 0.6, -0.1], [0.1, 0.2, 0.9]], dtype=torch.float64
    )
)
T2 = F.normalize(
    torch.tensor(
        [[0.8, 0.0, 0.1], [0.9, 0.1, -0.1], [0.5, 0.7, 0.0], [0.0, 0.3, 0.8]], dtype=torch.float64
    )
)
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def oracle_sinkhorn(logits, prior, epsilon=0.05, num_iters=300):
    """Steps 4 of the algorithm with Python floats and loops, scalings applied one by one."""
    batch, num = logits.shape
    kernel = [[math.exp(float(logits[i, k]) / epsilon) for i in range(batch)] for k in range(num)]
    cols = [1.0 / batch] * batch
    total = sum(float(p) for p in prior)
    for _ in range(num_iters):
        rows = [
            float(prior[k]) / total / sum(kernel[k][i] * cols[i] for i in range(batch))
            for k in range(num)
        ]
        cols = [1.0 / batch / sum(kernel[k][i] * rows[k] for k in range(num)) for i in range(batch)]
    return torch.tensor(
        [[batch * rows[k] * kernel[k][i] * cols[i] for k in range(num)] for i in range(batch)],
        dtype=torch.float64,
    )


def oracle_loss(t1, t2, prior, temperature=0.1, epsilon=0.05, num_iters=300):
    total = 0.0
    for a, b in ((t1, t2), (t2, t1)):
        q = oracle_sinkhorn(a, prior, epsilon, num_iters)
        for i in range(len(a)):
            denominator = sum(math.exp(float(v) / temperature) for v in b[i])
            for k in range(a.shape[1]):
                log_p = float(b[i, k]) / temperature - math.log(denominator)
                total -= float(q[i, k]) * log_p / len(a)
    return total


@pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 2), (4, 3), (10, 16), (100, 128), (129, 128)])
def test_simplex_etf_is_exact_up_to_d_plus_one(k, d):
    etf = simplex_etf(k, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = k / (k - 1) * torch.eye(k, dtype=torch.float64) - 1 / (k - 1)
    torch.testing.assert_close(etf @ etf.T, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        etf.sum(dim=0), torch.zeros(d, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert torch.linalg.matrix_rank(etf) == k - 1


def test_official_polar_construction_would_fail_at_d_plus_one():
    # The wrong variant: rows of the polar factor instead of a basis of the zero-sum subspace.
    gauss = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, vt = torch.linalg.svd(gauss, full_matrices=False)
    wrong = math.sqrt(4 / 3) * (torch.eye(4) - 0.25).double() @ (u @ vt)
    gram = wrong @ wrong.T
    assert (gram - (4 / 3 * torch.eye(4) - 1 / 3)).abs().max() > 1e-2


def test_more_directions_than_dimensions_are_nearly_uniform():
    etf = simplex_etf(40, 8, generator=torch.Generator().manual_seed(0))
    random = F.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(etf.norm(dim=1), torch.ones(40))

    def closest(x):
        return (x @ x.T - 2 * torch.eye(40)).max()

    assert closest(etf) < closest(random) - 0.1
    assert etf.mean(dim=0).norm() < 0.02


def test_etf_is_reproducible_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first = simplex_etf(5, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, simplex_etf(5, 8, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(first, simplex_etf(5, 8, generator=torch.Generator().manual_seed(4)))
    assert torch.equal(state, torch.get_rng_state())


def test_worked_example_of_the_spec():
    q1, q2 = sinkhorn(T1, PRIOR), sinkhorn(T2, PRIOR)
    expected_1 = [
        [0.999808, 0.000192, 0.0],
        [0.997147, 0.002853, 0.0],
        [0.001444, 0.998556, 0.0],
        [0.000004, 0.199349, 0.800648],
    ]
    expected_2 = [
        [0.999997, 0.000003, 0.0],
        [0.999974, 0.000026, 0.0],
        [0.000009, 0.999991, 0.0],
        [0.0, 0.199992, 0.800008],
    ]
    torch.testing.assert_close(q1, torch.tensor(expected_1).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(q2, torch.tensor(expected_2).double(), atol=1e-6, rtol=0)
    column_means = torch.tensor([0.499601, 0.300237, 0.200162]).double()
    torch.testing.assert_close(q1.mean(0), column_means, atol=1e-6, rtol=0)
    assert gh_loss(T1, T2, PRIOR).item() == pytest.approx(1.0441398, abs=1e-6)


@pytest.mark.parametrize(
    ("iterations", "error"), [(1, 0.0526), (3, 0.0516), (10, 0.0474), (50, 0.0015), (300, 0.0004)]
)
def test_column_error_after_n_iterations(iterations, error):
    q = sinkhorn(T1, PRIOR, num_iters=iterations)
    assert (q.mean(0) - PRIOR).abs().max().item() == pytest.approx(error, abs=1e-4)


def test_uniform_prior_columns():
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(T1).mean(0), third, atol=1e-9, rtol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(1, 4), (6, 5), (17, 3)])
def test_loss_equals_the_oracle(seed, shape):
    g = torch.Generator().manual_seed(seed)
    t1, t2 = (F.normalize(torch.randn(shape, generator=g, dtype=torch.float64)) for _ in range(2))
    prior = torch.rand(shape[1], generator=g, dtype=torch.float64) + 0.1
    loss = gh_loss(t1, t2, prior, num_iters=40)
    assert loss.item() == pytest.approx(oracle_loss(t1, t2, prior, num_iters=40), rel=1e-9)


def test_oracle_rejects_wrong_variants():
    right = oracle_loss(T1, T2, PRIOR)
    q1, q2 = sinkhorn(T1, PRIOR), sinkhorn(T2, PRIOR)
    log_p1, log_p2 = (F.log_softmax(t / 0.1, dim=1) for t in (T1, T2))
    not_swapped = -(q1 * log_p1).sum(1).mean() - (q2 * log_p2).sum(1).mean()
    halved = -0.5 * ((q1 * log_p2).sum(1).mean() + (q2 * log_p1).sum(1).mean())
    no_temperature = (
        -(q1 * T2.log_softmax(1)).sum(1).mean() - (q2 * T1.log_softmax(1)).sum(1).mean()
    )
    no_prior = gh_loss(T1, T2)
    for wrong in (not_swapped, halved, no_temperature, no_prior):
        assert abs(wrong.item() - right) > 1e-3


def test_constant_logits_give_the_prior_and_two_log_k():
    t = torch.ones(7, 4, dtype=torch.float64) / 2
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(t, prior), prior.expand(7, 4))
    assert gh_loss(t, t, prior).item() == pytest.approx(2 * math.log(4))


def test_rows_sum_to_one_and_zero_prior_takes_nothing():
    g = torch.Generator().manual_seed(0)
    t = F.normalize(torch.randn(64, 6, generator=g))
    prior = torch.tensor([0.5, 0.0, 0.2, 0.2, 0.1, 0.0])
    q = sinkhorn(t, prior)
    assert torch.isfinite(q).all()
    torch.testing.assert_close(q.sum(1), torch.ones(64), atol=1e-6, rtol=0)
    assert q[:, [1, 5]].abs().max() == 0
    torch.testing.assert_close(q.mean(0), prior, atol=1e-3, rtol=0)
    assert torch.isfinite(gh_loss(t, t, prior))


def test_tolerance_stops_early_with_the_promised_error():
    t = F.normalize(torch.randn(256, 10, generator=torch.Generator().manual_seed(0)))
    prior = torch.arange(1.0, 11.0)
    loose = sinkhorn(t, prior, num_iters=10_000, tolerance=1e-3)
    assert (loose.mean(0) - prior / prior.sum()).abs().sum() < 1e-3
    full = sinkhorn(t, prior, num_iters=3000)
    assert not torch.equal(loose, full)
    torch.testing.assert_close(loose, full, atol=5e-3, rtol=0)
    # A zero entry must not keep the loop from stopping.
    prior[3] = 0
    few = sinkhorn(t, prior, num_iters=10_000, tolerance=1e-3)
    assert (few.mean(0) - prior / prior.sum()).abs().sum() < 1e-3


def log_space_sinkhorn(logits, prior, epsilon, num_iters):
    """Every step by log-sum-exp in float64: slow, and stable at any epsilon."""
    scores = logits.double() / epsilon
    log_prior = (prior.double() / prior.double().sum()).log()
    rows = torch.zeros(len(scores), 1, dtype=torch.float64)
    for _ in range(num_iters):
        cols = log_prior - torch.logsumexp(scores + rows, dim=0)
        rows = -torch.logsumexp(scores + cols, dim=1, keepdim=True) - math.log(len(scores))
    return torch.softmax(scores + cols, dim=1)


@pytest.mark.parametrize("num_iters", [1, 2, 25, 26, 27, 60, 300])
@pytest.mark.parametrize("epsilon", [0.05, 0.02])
def test_equals_log_space_at_every_length(epsilon, num_iters):
    g = torch.Generator().manual_seed(1)
    t = F.normalize(torch.randn(32, 8, generator=g, dtype=torch.float64))
    prior = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.05, 0.04, 0.01, 0.0], dtype=torch.float64)
    expected = log_space_sinkhorn(t, prior, epsilon, num_iters)
    got = sinkhorn(t, prior, epsilon=epsilon, num_iters=num_iters)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)
    single = sinkhorn(t.float(), prior.float(), epsilon=epsilon, num_iters=num_iters)
    torch.testing.assert_close(single.double(), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("epsilon", [0.005, 0.001])
def test_small_epsilon_stays_finite_and_near_the_prior_in_float32(epsilon):
    # exp(t / epsilon) alone would be exp(1000).
    t = F.normalize(torch.randn(64, 8, generator=torch.Generator().manual_seed(1)))
    prior = torch.tensor([0.6, 0.2, 0.05, 0.05, 0.05, 0.03, 0.02, 0.0])
    q = sinkhorn(t, prior, epsilon=epsilon, num_iters=2000)
    assert torch.isfinite(q).all()
    torch.testing.assert_close(q.sum(1), torch.ones(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(q.mean(0), prior, atol=0.02, rtol=0)


def test_a_direction_far_from_every_sample_still_gets_its_share():
    t = torch.tensor([[1.0, 0.0, -1.0]]).expand(16, 3) + 0.01 * torch.randn(16, 3)
    q = sinkhorn(t, torch.tensor([0.2, 0.2, 0.6]), epsilon=0.002, num_iters=500)
    torch.testing.assert_close(q.mean(0), torch.tensor([0.2, 0.2, 0.6]), atol=0.02, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    g = torch.Generator().manual_seed(0)
    z1, z2 = (torch.randn(32, 16, generator=g) for _ in range(2))
    etf = simplex_etf(8, 16, generator=g)
    full = gh_loss(geometric_logits(z1, etf), geometric_logits(z2, etf))
    half = gh_loss(geometric_logits(z1.to(dtype), etf), geometric_logits(z2.to(dtype), etf))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=2e-2, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        auto = gh_loss(geometric_logits(z1, etf), geometric_logits(z2, etf))
    torch.testing.assert_close(auto, full)


def test_scale_of_z_does_not_matter_and_gradient_is_finite_at_collapse():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(12, 16, generator=g)
    etf = simplex_etf(5, 16, generator=g)
    torch.testing.assert_close(geometric_logits(z, etf), geometric_logits(37.0 * z, etf))
    collapsed = torch.ones(12, 16, requires_grad=True)
    gh_loss(geometric_logits(collapsed, etf), geometric_logits(collapsed, etf)).backward()
    assert torch.isfinite(collapsed.grad).all()
    zero = torch.zeros(4, 16, requires_grad=True)
    gh_loss(geometric_logits(zero, etf), geometric_logits(zero, etf)).backward()
    assert torch.isfinite(zero.grad).all()


def test_gradient_flows_through_predictions_only():
    t1, t2 = T1.clone().requires_grad_(), T2.clone().requires_grad_()
    gh_loss(t1, t2, PRIOR).backward()
    q1 = sinkhorn(T1, PRIOR)
    by_hand = (torch.softmax(T2 / 0.1, dim=1) - q1) / 0.1 / 4
    torch.testing.assert_close(t2.grad, by_hand)
    assert not sinkhorn(t1, PRIOR).requires_grad


def test_sample_permutation_leaves_the_loss_alone():
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(gh_loss(T1[order], T2[order], PRIOR), gh_loss(T1, T2, PRIOR))


def test_ramp():
    values = [ramp_weight(e, 500, 10) for e in (500, 501, 505, 510, 511)]
    assert values == pytest.approx([0.0, 0.1, 0.5, 1.0, 1.0])
    assert ramp_weight(1, 0, 0) == 1.0
    assert ramp_weight(11, 10, 0.2) == 1.0


def loop_update(memory, filled, indexes, logits, momentum):
    """Per-sample loop; a repeated image counts once, with the mean of its observations."""
    for i in sorted(set(indexes.tolist())):
        mean = torch.stack([t for j, t in zip(indexes, logits, strict=True) if j == i]).mean(0)
        memory[i] = momentum * memory[i] + (1 - momentum) * mean if filled[i] else mean
        filled[i] = True


def test_memory_update_equals_the_loop_and_ignores_order():
    g = torch.Generator().manual_seed(0)
    memory, filled = torch.zeros(10, 3), torch.zeros(10, dtype=torch.bool)
    expected, expected_filled = memory.clone(), filled.clone()
    for _ in range(5):
        indexes = torch.randint(0, 8, (6,), generator=g)
        logits = torch.randn(6, 3, generator=g)
        reverse = torch.arange(5, -1, -1)
        other, other_filled = memory.clone(), filled.clone()
        update_memory(memory, filled, indexes, logits, 0.9)
        update_memory(other, other_filled, indexes[reverse], logits[reverse], 0.9)
        loop_update(expected, expected_filled, indexes, logits, 0.9)
        torch.testing.assert_close(memory, other)
        torch.testing.assert_close(memory, expected)
    assert torch.equal(filled, expected_filled)
    assert memory[8:].abs().sum() == 0


def test_first_observation_is_not_averaged_with_the_start_value():
    memory, filled = torch.full((2, 2), 9.0), torch.zeros(2, dtype=torch.bool)
    update_memory(memory, filled, torch.tensor([1]), torch.tensor([[0.5, 0.25]]), 0.999)
    assert memory[1].tolist() == [0.5, 0.25]


def population_prior(memory, filled, floor=0.0):
    return prior_from_counts(direction_counts(memory, filled), floor)


def test_population_prior():
    memory = torch.tensor([[1.0, 0, 0], [0.9, 0, 0], [0, 2.0, 0], [0, 0, 5.0]])
    filled = torch.tensor([True, True, True, False])
    torch.testing.assert_close(population_prior(memory, filled), torch.tensor([2 / 3, 1 / 3, 0.0]))
    with_floor = torch.tensor([102 / 303, 101 / 303, 100 / 303])
    torch.testing.assert_close(population_prior(memory, filled, floor=100.0), with_floor)
    nothing = population_prior(memory, torch.zeros(4, dtype=torch.bool))
    torch.testing.assert_close(nothing, torch.full((3,), 1 / 3))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: simplex_etf(1, 4), "num_directions >= 2"),
        (lambda: geometric_logits(torch.ones(2, 3), torch.ones(4, 5)), r"simplex_etf\(K, 3\)"),
        (lambda: sinkhorn(T1, torch.ones(4)), r"shape \(3,\), got \(4,\)"),
        (lambda: sinkhorn(T1, torch.tensor([1.0, -1.0, 1.0])), "non-negative"),
        (lambda: sinkhorn(T1, torch.zeros(3)), "sum to zero"),
        (lambda: gh_loss(T1, T2[:2]), "differ in shape"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(UserError, match=text):
        call()


@pytest.mark.parametrize("peak", [0.0, 0.5, 1.0, 3.0])
def test_iterations_left_out_change_nothing(peak):
    """From labels that are settled at once to ones that are not after 300 iterations."""
    g = torch.Generator().manual_seed(0)
    nearest = torch.multinomial(100.0 ** -torch.linspace(0, 1, 8), 64, True, generator=g)
    t = peak * F.one_hot(nearest, 8) + 0.3 * torch.randn(64, 8, generator=g, dtype=torch.float64)
    t, prior = F.normalize(t), torch.arange(9.0, 1.0, -1.0, dtype=torch.float64)
    every = log_space_sinkhorn(t, prior, 0.05, 300)
    torch.testing.assert_close(sinkhorn(t, prior), every, atol=1e-9, rtol=0)
    single = sinkhorn(t.float(), prior.float())
    torch.testing.assert_close(single.double(), every, atol=6e-5, rtol=0)


def test_the_bound_on_further_change_holds():
    """Three steps before the end, what is still to come stays below what was promised."""
    g = torch.Generator().manual_seed(1)
    t = F.normalize(torch.randn(32, 8, generator=g, dtype=torch.float64))
    prior = torch.rand(8, generator=g, dtype=torch.float64)
    q = sinkhorn(t, prior, num_iters=3)
    ratios = q.mean(dim=0) / (prior / prior.sum())
    change = (sinkhorn(t, prior, num_iters=23) - q).abs().max()
    bound = sinkhorn_module._step(ratios) * 20 / 4
    assert change < bound
    assert change > bound / 100  # and the bound says something


def crowded_logits(seed, batch=512, directions=100, noise=0.1):
    """As GH makes them after some epochs: each image near one direction, directions long-tailed."""
    g = torch.Generator().manual_seed(seed)
    shares = 100.0 ** -torch.linspace(0, 1, directions)
    nearest = F.one_hot(torch.multinomial(shares, batch, True, generator=g), directions)
    t = 0.6 * nearest + noise * torch.randn(batch, directions, generator=g)
    return F.normalize(t, dim=1), shares


@pytest.fixture
def relaxations(monkeypatch):
    """Calls of the over-relaxed iteration: whether each was taken."""
    taken, original = [], sinkhorn_module._over_relaxed

    def spy(*args):
        cols = original(*args)
        taken.append(cols is not None)
        return cols

    monkeypatch.setattr(sinkhorn_module, "_over_relaxed", spy)
    return taken


@pytest.mark.parametrize("seed", range(8))
def test_over_relaxation_arrives_where_every_iteration_would(seed, relaxations):
    t, prior = crowded_logits(seed)
    q = sinkhorn(t, prior)
    assert relaxations == [True]
    expected = log_space_sinkhorn(t, prior, 0.05, 300)
    torch.testing.assert_close(q.double(), expected, atol=6e-5, rtol=0)
    early = log_space_sinkhorn(t, prior, 0.05, 40)  # as many pairs as were spent are not enough
    assert (early - expected).abs().max() > 3e-4


def test_over_relaxation_is_given_up_where_iterations_would_not_arrive(relaxations):
    """A problem too slow for 300 iterations keeps the labels of 300, not those of the limit."""
    g = torch.Generator().manual_seed(0)
    nearest = F.one_hot(torch.arange(64) % 8, 8)
    t = F.normalize(nearest + 0.05 * torch.randn(64, 8, generator=g), dim=1)
    prior = torch.linspace(0.9, 1.1, 8)  # some images must move between two far directions
    q = sinkhorn(t, prior)
    assert relaxations == [False]
    expected, limit = (log_space_sinkhorn(t, prior, 0.05, n) for n in (300, 10_000))
    assert (expected - limit).abs().max() > 1e-2
    torch.testing.assert_close(q.double(), expected, atol=6e-5, rtol=0)


def test_fewer_iterations_are_not_relaxed(relaxations):
    t, prior = crowded_logits(0)
    expected = log_space_sinkhorn(t, prior, 0.05, 60)
    torch.testing.assert_close(
        sinkhorn(t, prior, num_iters=60).double(), expected, atol=6e-5, rtol=0
    )
    assert relaxations == []


@pytest.mark.parametrize("of_a_gpu", [False, True])
def test_rows_that_do_not_count_are_as_if_left_out(of_a_gpu, monkeypatch):
    """Images of an OOD pool; a GPU keeps them in the batch, as their number is not known there."""
    if of_a_gpu:
        monkeypatch.setattr("ltplugins.losses.gh.runs_behind", lambda values: True)
    g = torch.Generator().manual_seed(4)
    t_1, t_2 = (F.normalize(torch.randn(9, 4, generator=g).double(), dim=1) for _ in range(2))
    counted = torch.tensor([True, True, False, True, False, True, True, True, False])
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1])
    t_2.requires_grad_()
    found, expected = (
        gh_loss(t_1, t_2, prior, counted=counted),
        gh_loss(t_1[counted], t_2[counted], prior),
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grads = [torch.autograd.grad(loss, t_2)[0] for loss in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_no_row_that_counts_is_a_loss_of_0():
    t = F.normalize(torch.ones(3, 2), dim=1).requires_grad_()
    loss = gh_loss(t, t, counted=torch.zeros(3, dtype=torch.bool))
    assert loss == 0
    assert loss.requires_grad
