# SPDX-License-Identifier: MIT
"""COLT's terms against the sheet's worked numbers, nested-loop oracles and wrong variants."""

import math

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.losses.colt import (
    distribution_supcon_loss,
    tail_scores,
)
from ltplugins.losses.terms.bases import nt_xent
from ltplugins.losses.terms.memory import update_memory
from ltplugins.losses.terms.ood_selection import allocate_budget, budget_weights, select_ood


def at_angles(*degrees):
    radians = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


THREE = at_angles(0, 20, 90), at_angles(10, 30, 100)
FOUR = at_angles(0, 20, 90, 200), at_angles(10, 30, 100, 210)
SECOND_HALF = torch.tensor([False, False, True, True])


def views_of(z_1, z_2):
    """[(image, unit vector), ...] of all views."""
    rows = [*enumerate(z_1.tolist()), *enumerate(z_2.tolist())]
    return [(i, [v / math.sqrt(sum(u * u for u in z)) for v in z]) for i, z in rows]


def similarity(a, b, tau):
    return math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / tau)


def oracle_scores(z_1, z_2, tau, k):
    """Step 2 with loops: both views' probabilities of each negative view, averaged, top k."""
    views, batch = views_of(z_1, z_2), len(z_1)
    scores = []
    for image in range(batch):
        mean = [0.0] * len(views)
        for anchor in (image, image + batch):
            total = sum(
                similarity(views[anchor][1], v, tau)
                for j, (_, v) in enumerate(views)
                if j != anchor
            )
            for j, (other, v) in enumerate(views):
                if other != image:
                    mean[j] += similarity(views[anchor][1], v, tau) / total / 2
        scores.append(sum(sorted(mean, reverse=True)[:k]))
    return torch.tensor(scores, dtype=torch.float64)


def oracle_supcon(z_1, z_2, is_ood, tau, denominator="all"):
    views = views_of(z_1, z_2)
    domain = [bool(is_ood[i]) for i, _ in views]
    if len(set(domain)) == 1:
        return 0.0
    total = 0.0
    for i, (_, a) in enumerate(views):
        others = [j for j in range(len(views)) if j != i]
        positives = [j for j in others if domain[j] == domain[i]]
        for p in positives:
            pair = similarity(a, views[p][1], tau)
            rest = others if denominator == "all" else [j for j in others if j not in positives]
            below = sum(similarity(a, views[j][1], tau) for j in rest)
            if denominator == "cross_domain":
                below += pair
            total -= math.log(pair / below) / len(positives) / len(views)
    return total


def random_views(seed, batch, dim=5):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, dim, generator=g, dtype=torch.float64) for _ in range(2)]


def test_worked_nt_xent_that_the_scores_belong_to():
    z = torch.cat(THREE)
    ids = torch.arange(3).repeat(2)
    per_anchor = [
        nt_xent(z[i : i + 1], ids[i : i + 1], 0.5, all_z=z, all_ids=ids, offset=i).item()
        for i in range(6)
    ]
    expected = [1.078530, 1.220137, 0.689476, 1.178862, 1.211342, 0.537674]
    assert per_anchor == pytest.approx(expected, abs=1e-6)
    assert nt_xent(z, ids, 0.5).item() == pytest.approx(0.986003, abs=1e-6)


def test_worked_scores_and_the_isolated_image_is_the_lowest():
    scores = tail_scores(*THREE, temperature=0.5, topk=2)
    assert scores.tolist() == pytest.approx([0.583824, 0.535921, 0.302946], abs=1e-6)
    assert int(scores.argmin()) == 2


def test_worked_mixed_batch():
    contrastive = nt_xent(torch.cat(FOUR), torch.arange(4).repeat(2), 0.5).item()
    separation = distribution_supcon_loss(*FOUR, SECOND_HALF, temperature=0.5).item()
    assert contrastive == pytest.approx(0.816122, abs=1e-6)
    assert separation == pytest.approx(1.733777, abs=1e-6)
    assert contrastive + 0.2 * separation == pytest.approx(1.162877, abs=1e-6)
    scores = tail_scores(*FOUR, temperature=0.5, topk=2).tolist()
    assert scores == pytest.approx([0.575721, 0.529898, 0.281041, 0.118153], abs=1e-6)


def test_score_by_hand():
    # Two images, four orthogonal views: every probability is 1/3, the two negatives sum to 2/3.
    z = torch.eye(4, dtype=torch.float64)
    scores = tail_scores(z[:2], z[2:], temperature=0.3, topk=2)
    assert scores.tolist() == pytest.approx([2 / 3, 2 / 3])
    # Supervised by hand: each view has one positive of three equal others.
    loss = distribution_supcon_loss(z[:2], z[2:], torch.tensor([True, False]), temperature=0.3)
    assert loss.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("batch", "topk"), [(2, 1), (5, 3), (5, 8), (9, 10)])
def test_scores_equal_the_oracle(seed, batch, topk):
    z_1, z_2 = random_views(seed, batch)
    got = tail_scores(z_1, z_2, temperature=0.2, topk=topk)
    torch.testing.assert_close(got, oracle_scores(z_1, z_2, 0.2, topk))


@pytest.mark.parametrize("denominator", ["all", "cross_domain"])
@pytest.mark.parametrize("is_ood", [[1, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1, 0], [0, 0], [1, 1, 1]])
def test_supcon_equals_the_oracle(is_ood, denominator):
    z_1, z_2 = random_views(len(is_ood), len(is_ood))
    is_ood = torch.tensor(is_ood).bool()
    got = distribution_supcon_loss(z_1, z_2, is_ood, temperature=0.2, denominator=denominator)
    expected = oracle_supcon(z_1, z_2, is_ood, 0.2, denominator)
    assert got.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.03, 0.02])
def test_scores_at_low_temperatures_in_float32(temperature):
    """Either side of the temperature below which exp((cos - 1) / T) would underflow."""
    g = torch.Generator().manual_seed(0)
    z_1, z_2 = torch.randn(2, 9, 4, generator=g, dtype=torch.float64)
    found = tail_scores(z_1.float(), z_2.float(), temperature=temperature, topk=3)
    expected = oracle_scores(z_1, z_2, temperature, 3)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_scores_do_not_depend_on_the_number_at_a_time(monkeypatch):
    z_1, z_2 = random_views(0, 9)
    whole = tail_scores(z_1, z_2, temperature=0.2, topk=3)
    for images in (1, 4, 8):
        monkeypatch.setattr("ltplugins.losses.colt._IMAGES", images)
        torch.testing.assert_close(tail_scores(z_1, z_2, temperature=0.2, topk=3), whole)


def test_oracles_reject_wrong_variants():
    z_1, z_2 = random_views(0, 6)
    right = oracle_scores(z_1, z_2, 0.2, 3)
    p = torch.softmax(torch.nn.functional.normalize(z_1) @ torch.nn.functional.normalize(z_2).T, 1)
    wrong_scores = {
        "no temperature": tail_scores(z_1, z_2, temperature=1.0, topk=3),
        "one view only": tail_scores(z_1, z_1, temperature=0.2, topk=3),
        "all negatives": tail_scores(z_1, z_2, temperature=0.2, topk=10),
        "half the negatives, the positive among them": p.topk(3).values.sum(1),
    }
    for name, wrong in wrong_scores.items():
        assert (wrong - right).abs().max() > 1e-2, name

    is_ood = torch.tensor([0, 1, 0, 0, 1, 0]).bool()
    right_loss = oracle_supcon(z_1, z_2, is_ood, 0.2)
    z, labels = torch.cat([z_1, z_2]), is_ood.long().repeat(2)
    logits = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(z).T / 0.2
    same = labels[:, None] == labels[None, :]
    log_p = torch.log_softmax(logits, dim=1)
    wrong_losses = {
        "sum inside the logarithm": nt_xent(z, labels, 0.2),
        "self as positive and in the denominator": -((log_p * same).sum(1) / same.sum(1)).mean(),
        "no temperature": distribution_supcon_loss(z_1, z_2, is_ood, temperature=1.0),
        "the other denominator": distribution_supcon_loss(
            z_1, z_2, is_ood, temperature=0.2, denominator="cross_domain"
        ),
    }
    for name, wrong in wrong_losses.items():
        assert abs(wrong.item() - right_loss) > 1e-2, name


@pytest.mark.parametrize(
    ("share", "k"), [(0.01, 1), (0.1, 1), (0.3, 3), (0.999, 9), (1.0, 10), (0.25, 2)]
)
def test_topk_as_a_share_of_the_negatives(share, k):
    z_1, z_2 = random_views(1, 6)  # 10 negatives
    by_share = tail_scores(z_1, z_2, temperature=0.2, topk=share)
    assert torch.equal(by_share, tail_scores(z_1, z_2, temperature=0.2, topk=k))


def test_more_than_there_are_is_all_of_them_and_a_single_image_has_none():
    z_1, z_2 = random_views(2, 3)
    every = tail_scores(z_1, z_2, temperature=0.2, topk=4)
    assert torch.equal(tail_scores(z_1, z_2, temperature=0.2, topk=10), every)
    assert tail_scores(z_1[:1], z_2[:1], temperature=0.2, topk=10).tolist() == [0.0]
    alone = distribution_supcon_loss(z_1[:1], z_2[:1], torch.tensor([True]), temperature=0.2)
    assert alone.item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    z_1, z_2 = (z.float() for z in random_views(3, 16, 32))
    is_ood = torch.arange(16) > 9

    def both(a, b):
        return (
            tail_scores(a, b, temperature=0.2, topk=5),
            distribution_supcon_loss(a, b, is_ood, temperature=0.2),
        )

    for got, full in zip(both(z_1.to(dtype), z_2.to(dtype)), both(z_1, z_2), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, full, rtol=3e-2, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        auto = both(z_1, z_2)
    for got, full in zip(auto, both(z_1, z_2), strict=True):
        torch.testing.assert_close(got, full)


@pytest.mark.parametrize("denominator", ["all", "cross_domain"])
@pytest.mark.parametrize("is_ood", [[False, False, True, True], [False] * 4, [True] * 4])
def test_finite_at_low_temperature_and_at_collapse(is_ood, denominator):
    is_ood = torch.tensor(is_ood)
    for start in (torch.ones(4, 8), torch.zeros(4, 8), torch.randn(4, 8)):
        z_1, z_2 = (start.clone().requires_grad_() for _ in range(2))
        loss = distribution_supcon_loss(z_1, z_2, is_ood, temperature=0.01, denominator=denominator)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(z_1.grad).all()
        if len(set(is_ood.tolist())) == 1:
            assert loss.item() == 0
            assert z_1.grad.abs().max() == 0
        assert torch.isfinite(tail_scores(z_1, z_2, temperature=0.01, topk=2)).all()


def test_symmetries():
    z_1, z_2 = random_views(4, 6)
    is_ood = torch.tensor([0, 1, 0, 0, 1, 0]).bool()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    scores = tail_scores(z_1, z_2, temperature=0.2, topk=3)
    loss = distribution_supcon_loss(z_1, z_2, is_ood, temperature=0.2)
    torch.testing.assert_close(
        tail_scores(z_1[order], z_2[order], temperature=0.2, topk=3), scores[order]
    )
    torch.testing.assert_close(tail_scores(z_2, 7 * z_1, temperature=0.2, topk=3), scores)
    for other in (
        distribution_supcon_loss(z_1[order], z_2[order], is_ood[order], temperature=0.2),
        distribution_supcon_loss(3 * z_2, z_1, ~is_ood, temperature=0.2),
    ):
        torch.testing.assert_close(other, loss)
    assert not tail_scores(z_1.requires_grad_(), z_2, temperature=0.2, topk=3).requires_grad


def test_separated_domains_have_a_lower_loss():
    mixed = at_angles(0, 90, 5, 95), at_angles(2, 92, 7, 97)
    apart = at_angles(0, 5, 90, 95), at_angles(2, 7, 92, 97)
    losses = [distribution_supcon_loss(*z, SECOND_HALF, temperature=0.2) for z in (mixed, apart)]
    assert losses[1] < losses[0] - 1
    # Its optimum: both domains in a point each, one opposite the other.
    best = at_angles(0, 0, 180, 180)
    optimum = -math.log(1 / (3 + 4 * math.exp(-2 / 0.2)))
    got = distribution_supcon_loss(best, best, SECOND_HALF, temperature=0.2).item()
    assert got == pytest.approx(optimum)


def test_worked_budget():
    means = torch.tensor([3.0, 1.0, 2.0])
    expected = [0.090031, 0.665241, 0.244728]
    assert budget_weights(means).tolist() == pytest.approx(expected, abs=1e-6)
    # Quotas 0.90, 6.65, 2.45: the official result (0, 6, 4) gives both spare ones to the last.
    assert allocate_budget(means, 10, temperature=1.0).tolist() == [1, 7, 2]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_budgets_sum_and_follow_the_scores(temperature):
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        size = int(torch.randint(1, 12, (1,), generator=g))
        budget = int(torch.randint(0, 500, (1,), generator=g))
        scores = torch.rand(size, generator=g, dtype=torch.float64)
        budgets = allocate_budget(scores, budget, temperature=temperature)
        assert int(budgets.sum()) == budget
        assert (budgets >= 0).all()
        by_score = budgets[scores.argsort()]
        assert (by_score[1:] <= by_score[:-1]).all()  # lower mean, no smaller budget
        quota = budget * budget_weights(scores, temperature=temperature)
        assert ((budgets - quota).abs() < 1).all()
        order = torch.randperm(size, generator=g)
        other = allocate_budget(scores[order], budget, temperature=temperature)
        assert torch.equal(other, budgets[order])


def test_lowering_a_mean_never_lowers_its_share():
    g = torch.Generator().manual_seed(1)
    for _ in range(300):
        scores = torch.rand(6, generator=g, dtype=torch.float64)
        lower = scores.clone()
        lower[2] -= torch.rand(1, generator=g, dtype=torch.float64).item()
        assert budget_weights(lower)[2] >= budget_weights(scores)[2] - 1e-12
        assert allocate_budget(lower, 100)[2] >= allocate_budget(scores, 100)[2] - 1


def test_equal_means_and_one_cluster_share_equally():
    assert allocate_budget(torch.full((3,), 0.4), 10).tolist() == [4, 3, 3]
    assert allocate_budget(torch.tensor([0.7]), 10).tolist() == [10]
    assert allocate_budget(torch.tensor([0.7, 0.1]), 0).tolist() == [0, 0]


OOD = at_angles(5, 10, 20, 30, 45, 62, 70)


def nearest(feats, centers, budgets, **options):
    """By the cosines that the method works out a stretch of the pool at a time."""
    unit, unit_centers = (torch.nn.functional.normalize(x.float()) for x in (feats, centers))
    return select_ood(unit @ unit_centers.T, budgets, **options)


@pytest.mark.parametrize("assignment", ["greedy", "fair"])
def test_worked_selection(assignment):
    chosen = nearest(OOD, at_angles(0, 60), torch.tensor([3, 3]), assignment=assignment)
    assert [c.tolist() for c in chosen.split([3, 3])] == [[0, 1, 2], [5, 6, 4]]


def test_greedy_favours_the_first_cluster_and_fair_does_not():
    # Centres at 0 and 30 degrees; 26 and 28 are the second's, but the first is asked first.
    feats, centers, budgets = at_angles(2, 26, 28, 80), at_angles(0, 30), torch.tensor([2, 2])
    assert nearest(feats, centers, budgets).tolist() == [0, 1, 2, 3]
    fair = nearest(feats, centers, budgets, assignment="fair")
    assert fair.tolist() == [0, 3, 2, 1]
    backwards = nearest(feats, centers.flip(0), budgets, assignment="fair")
    assert [p.tolist() for p in backwards.split(2)] == [[2, 1], [0, 3]]


def oracle_fair(similarity, budgets):
    """Closest pair first, while the image is free and the cluster has room."""
    pairs = sorted(
        (-float(similarity[i, c]), i, c)
        for i in range(len(similarity))
        for c in range(len(budgets))
    )
    left, taken, chosen = list(budgets), set(), [[] for _ in budgets]
    for _, i, c in pairs:
        if i not in taken and left[c]:
            taken.add(i)
            left[c] -= 1
            chosen[c].append(i)
    return [i for part in chosen for i in part]


@pytest.mark.parametrize("seed", range(5))
def test_both_assignments_equal_their_loops_and_are_unique(seed):
    g = torch.Generator().manual_seed(seed)
    feats = torch.randn(60, 4, generator=g)
    centers = torch.randn(5, 4, generator=g)
    budgets = torch.tensor([7, 0, 20, 3, 30][:5])
    cosine = torch.nn.functional.normalize(feats) @ torch.nn.functional.normalize(centers).T
    free, greedy = set(range(60)), []
    for c, budget in enumerate(budgets.tolist()):
        closest = sorted(free, key=lambda i: -float(cosine[i, c]))[:budget]
        greedy += closest
        free -= set(closest)
    assert nearest(feats, centers, budgets).tolist() == greedy
    fair = nearest(feats, centers, budgets, assignment="fair")
    assert fair.tolist() == oracle_fair(cosine, budgets.tolist())
    assert len(set(fair.tolist())) == len(set(greedy)) == 60


def test_scale_of_features_and_centres_has_no_influence():
    scales = torch.rand(7, 1, dtype=torch.float64) + 0.5
    chosen = nearest(OOD * scales, 9 * at_angles(0, 60), torch.tensor([3, 3]))
    assert chosen.tolist() == [0, 1, 2, 5, 6, 4]


def test_worked_moving_average():
    memory, filled = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.bool)
    seen = []
    for g in (0.8, 0.6, 0.4):
        update_memory(memory, filled, torch.tensor([0]), torch.tensor([g]).double(), 0.97)
        seen.append(memory.item())
    assert seen == pytest.approx([0.8, 0.794, 0.78218])


@pytest.mark.parametrize("indexes", [[5, 1, 7, 1, 3], [6, 5], [5, 0], [0, 4]])
def test_memory_ignores_ood_rows(indexes):
    """Indexes of 5 and more are no training images."""
    indexes = torch.tensor(indexes)
    values = torch.arange(1.0, len(indexes) + 1)
    memory, filled = torch.arange(10.0, 15.0), torch.tensor([True, False, True, True, False])
    expected, expected_filled = memory.clone(), filled.clone()
    for i in sorted({int(i) for i in indexes if i < 5}):
        mean = values[indexes == i].mean()
        expected[i] = 0.9 * expected[i] + 0.1 * mean if filled[i] else mean
        expected_filled[i] = True
    rows = memory.clone()[:, None].repeat(1, 3)
    update_memory(rows, filled.clone(), indexes, values[:, None].repeat(1, 3), 0.9)
    update_memory(memory, filled, indexes, values, 0.9)
    torch.testing.assert_close(memory, expected)
    torch.testing.assert_close(rows, expected[:, None].repeat(1, 3))
    assert torch.equal(filled, expected_filled)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: tail_scores(THREE[0], FOUR[0], temperature=1, topk=1), "views differ in shape"),
        (lambda: tail_scores(*THREE, temperature=1, topk=0), "a number of negatives"),
        (lambda: tail_scores(*THREE, temperature=1, topk=1.5), r"up to 1.0 \(0.01\), got 1.5"),
        (
            lambda: distribution_supcon_loss(*FOUR, torch.ones(3), temperature=1),
            r"4 images, is_ood has shape \(3,\)",
        ),
        (
            lambda: distribution_supcon_loss(
                *FOUR, SECOND_HALF, temperature=1, denominator="crossdomain"
            ),
            "Did you mean 'cross_domain'",
        ),
        (lambda: allocate_budget(torch.tensor([1.0, math.nan]), 3), "one finite mean per cluster"),
        (lambda: allocate_budget(torch.ones(2), -1), "expected 0 or more, got -1"),
        (lambda: allocate_budget(torch.ones(2), 3, temperature=0.0), "expected above 0, got 0.0"),
        (
            lambda: nearest(OOD, at_angles(0, 60), torch.tensor([4, 4])),
            "ask for 8 images, the OOD pool has 7",
        ),
        (lambda: nearest(OOD, at_angles(0, 60), torch.tensor([1])), "expected 2 budgets"),
        (
            lambda: nearest(OOD, at_angles(0, 60), torch.tensor([1, 1]), assignment="far"),
            "Did you mean 'fair'",
        ),
        (
            lambda: nearest(OOD * math.nan, at_angles(0, 60), torch.tensor([1, 1])),
            "training has diverged",
        ),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(UserError, match=text):
        call()
