# SPDX-License-Identifier: MIT
"""GML's losses against the spec's worked numbers, nested-loop oracles and wrong variants."""

import math

import pytest
import torch
import torch.nn.functional as F

from ltplugins.losses.gml import (
    ContrastiveTerms,
    bayes_cross_entropy,
    class_log_mean_exp,
    contrastive_terms,
    gml_loss,
    logit_adjusted_cross_entropy,
)
from ltplugins.losses.terms.distillation import distillation_loss


def at_degrees(*angles):
    """Unit vectors in the plane."""
    radians = torch.tensor(angles, dtype=torch.float64) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def prior_of(*values):
    return torch.tensor(values, dtype=torch.float64)


# The spec's example (4).
Q, KEYS = at_degrees(0, 60, 130), at_degrees(10, -20, 30, 70, 50, 140)
KEY_TARGETS, TARGETS = torch.tensor([0, 0, 0, 1, 1, 2]), torch.arange(3)
ELL = [
    [4.679935, 2.721505, -3.830222],
    [3.538187, 4.924039, 0.868241],
    [-1.762317, 1.985489, 4.924039],
]
# The spec's example (5).
COSINES = torch.tensor([[0.8, 0.3, -0.1], [0.2, 0.7, 0.1], [0.0, 0.4, 0.5]], dtype=torch.float64)
TEACHER = torch.tensor([[0.9, 0.2, 0.0], [0.1, 0.8, 0.2], [0.1, 0.3, 0.6]], dtype=torch.float64)


def random_case(n=16, k=40, dim=8, classes=5, g=None):
    """Queries, keys, their classes and image indexes, and a prior."""
    g = g or torch.Generator().manual_seed(7)
    q = F.normalize(torch.randn(n, dim, generator=g, dtype=torch.float64), dim=1)
    keys = F.normalize(torch.randn(k, dim, generator=g, dtype=torch.float64), dim=1)
    targets = torch.randint(0, classes, (n,), generator=g)
    key_targets = torch.randint(0, classes, (k,), generator=g)
    key_indexes = torch.randint(0, 30, (k,), generator=g)
    prior = prior_of(60, 30, 15, 10, 5)[:classes]
    return {
        "q": q,
        "keys": keys,
        "key_targets": key_targets,
        "key_indexes": key_indexes,
        "targets": targets,
        "indexes": torch.arange(n),
        "prior": prior / prior.sum(),
    }


def oracle_terms(case, temperature, leave_one_out):
    """Steps 4 and 5 with Python floats; None stands for a masked class."""
    q, keys, prior = case["q"].tolist(), case["keys"].tolist(), case["prior"].tolist()
    losses = []
    for i, query in enumerate(q):
        evidence = []
        for c, share in enumerate(prior):
            weights = [
                math.exp(sum(a * b for a, b in zip(query, key, strict=True)) / temperature)
                for j, key in enumerate(keys)
                if case["key_targets"][j] == c
                and not (leave_one_out and case["key_indexes"][j] == case["indexes"][i])
            ]
            evidence.append(share * sum(weights) / len(weights) if weights else None)
        own = evidence[case["targets"][i]]
        total = sum(e for e in evidence if e is not None)
        losses.append(-math.log(own / total) if own else 0.0)
    return sum(losses) / len(losses)


def contrast(case, temperature=0.1):
    temperature = torch.as_tensor(temperature, dtype=case["q"].dtype)
    return contrastive_terms(**case, temperature=temperature)


def class_log_likelihood(q, keys, key_targets, *, num_classes, temperature, weights=None):
    logits = q @ keys.T / temperature
    return class_log_mean_exp(logits, key_targets, num_classes=num_classes, weights=weights)


def test_worked_likelihoods():
    ell = class_log_likelihood(Q, KEYS, KEY_TARGETS, num_classes=3, temperature=0.2)
    torch.testing.assert_close(ell, torch.tensor(ELL, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("prior", "expected"),
    [((1, 1, 1), 0.140639), ((0.6, 0.3, 0.1), 0.210499), ((1 / 2, 1 / 3, 1 / 6), 0.172943)],
)
def test_worked_contrastive_losses(prior, expected):
    prior = prior_of(*prior) / sum(prior)
    ell = class_log_likelihood(Q, KEYS, KEY_TARGETS, num_classes=3, temperature=0.2)
    assert bayes_cross_entropy(ell, TARGETS, prior).item() == pytest.approx(expected, abs=1e-6)


def test_one_value_by_hand():
    """Two classes, one key each, at 0 and 90 degrees: ell = (1/T, 0), so p = .9 e / (.9 e + .1)."""
    ell = class_log_likelihood(
        at_degrees(0), at_degrees(0, 90), torch.tensor([0, 1]), num_classes=2, temperature=1.0
    )
    loss = bayes_cross_entropy(ell, torch.tensor([0]), prior_of(0.9, 0.1))
    assert loss.item() == pytest.approx(-math.log(0.9 * math.e / (0.9 * math.e + 0.1)))


def test_uniform_prior_and_one_key_a_class_is_infonce():
    """Property 1."""
    keys = at_degrees(10, 60, 140)
    ell = class_log_likelihood(Q, keys, torch.arange(3), num_classes=3, temperature=0.2)
    loss = bayes_cross_entropy(ell, TARGETS, prior_of(1 / 3, 1 / 3, 1 / 3))
    assert loss.item() == pytest.approx(0.0978703, abs=1e-7)
    torch.testing.assert_close(loss, F.cross_entropy(Q @ keys.T / 0.2, TARGETS))
    # Any constant serves as a uniform prior.
    torch.testing.assert_close(loss, bayes_cross_entropy(ell, TARGETS, prior_of(1, 1, 1)))


def test_duplicated_keys_change_nothing():
    """Property 2: a mean, not a sum."""
    twice = torch.cat([torch.arange(6), torch.tensor([0, 1, 2])])
    options = {"num_classes": 3, "temperature": 0.2}
    torch.testing.assert_close(
        class_log_likelihood(Q, KEYS[twice], KEY_TARGETS[twice], **options),
        class_log_likelihood(Q, KEYS, KEY_TARGETS, **options),
    )


def test_prior_as_the_keys_is_supcon_in():
    """Property 3: -log of the same class's share of all exponentials."""
    ell = class_log_likelihood(Q, KEYS, KEY_TARGETS, num_classes=3, temperature=0.2)
    loss = bayes_cross_entropy(ell, TARGETS, prior_of(3, 2, 1) / 6)
    weights = (Q @ KEYS.T / 0.2).exp()
    same = TARGETS[:, None] == KEY_TARGETS[None, :]
    expected = -((weights * same).sum(1) / weights.sum(1)).log().mean()
    torch.testing.assert_close(loss, expected)


def test_worked_supervised_and_distillation_losses():
    """Property 5."""
    uniform, skewed = prior_of(1, 1, 1) / 3, prior_of(0.6, 0.3, 0.1)
    for prior, expected in ((uniform, 0.016196), (skewed, 0.046403)):
        loss = logit_adjusted_cross_entropy(COSINES, TARGETS, prior, scale=30.0)
        assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert distillation_loss(30 * COSINES, 30 * COSINES, temperature=4.0).item() == pytest.approx(
        0, abs=1e-12
    )
    kd = distillation_loss(30 * COSINES, 30 * TEACHER, temperature=4.0)
    assert kd.item() == pytest.approx(0.862165, abs=1e-6)


def test_each_term_trains_its_own():
    """Property 6: d L_con / d logT = 0 and d L_T / d features = 0."""
    case = random_case()
    for term, trains_features in (("features", True), ("temperature", False)):
        q, keys = (case[n].clone().requires_grad_() for n in ("q", "keys"))
        log_temperature = torch.tensor(math.log(0.1), requires_grad=True)
        terms = contrast({**case, "q": q, "keys": keys}, log_temperature.exp())
        inputs = [q, keys, log_temperature]
        grads = torch.autograd.grad(getattr(terms, term), inputs, allow_unused=True)
        reached = [g is not None and bool(g.abs().sum() > 0) for g in grads]
        assert reached == [trains_features, trains_features, not trains_features]


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_terms_match_the_oracle(temperature):
    case = random_case()
    terms = contrast(case, temperature)
    for value, leave_one_out in zip(terms, (False, True), strict=True):
        assert value.item() == pytest.approx(oracle_terms(case, temperature, leave_one_out))


def test_oracle_rejects_wrong_variants():
    case = random_case()
    with_own, without = (oracle_terms(case, 0.1, own) for own in (False, True))
    dots = case["q"] @ case["keys"].T / 0.1
    options = {"num_classes": 5, "temperature": 0.1}
    ell = class_log_likelihood(case["q"], case["keys"], case["key_targets"], **options)
    sums = ell + torch.bincount(case["key_targets"]).log()
    wrong = {
        "no temperature": contrast(case, 1.0).features,
        "no prior": bayes_cross_entropy(ell, case["targets"], torch.ones(5)),
        "sum for mean": bayes_cross_entropy(sums, case["targets"], case["prior"]),
        "own image left out": contrast(case).temperature,
        "mean of dots": bayes_cross_entropy(
            dots @ F.one_hot(case["key_targets"]).double() / torch.bincount(case["key_targets"]),
            case["targets"],
            case["prior"],
        ),
        "half the keys": contrast({k: v[::2] if "key" in k else v for k, v in case.items()})[0],
    }
    for name, value in wrong.items():
        assert abs(value.item() - with_own) > 1e-3, name
    for wrong_value in (with_own, oracle_terms(case, 1.0, True), 0.5 * without):
        assert abs(contrast(case).temperature.item() - wrong_value) > 1e-3


def test_numbers_of_the_official_code():
    """``GMLLoss`` at 1ff816c, in float32, on these inputs: losses and norms of gradients."""
    g = torch.Generator().manual_seed(7)
    case = random_case(g=g)
    units = [
        F.normalize(torch.randn(n, 6, generator=g, dtype=torch.float64), dim=1)
        for n in (16, 5, 16, 5)
    ]
    cosines, teacher = (units[0] @ units[1].T).requires_grad_(), units[2] @ units[3].T
    q, keys = (case[n].clone().requires_grad_() for n in ("q", "keys"))
    log_temperature = torch.tensor(math.log(0.1), dtype=torch.float64, requires_grad=True)
    terms = gml_loss(
        cosines,
        case["targets"],
        case["prior"],
        contrast({**case, "q": q, "keys": keys}, log_temperature.exp()),
        scale=30.0,
        teacher_logits=30 * teacher,
        distill_weight=1.0,
    )
    terms.total.backward()
    official = {
        71.937164: terms.total,
        4.939737: terms.contrastive + terms.temperature,
        21.359884: terms.supervised,
        -0.906787: log_temperature.grad,
        1.607763: q.grad.norm(),
        2.452731: keys.grad.norm(),
        29.919016: cosines.grad.norm(),
    }
    for expected, value in official.items():
        assert value.item() == pytest.approx(expected, abs=2e-5)


def test_total_is_the_weighted_sum_of_its_parts():
    options = {"scale": 30.0, "teacher_logits": 30 * TEACHER}
    weights = {"sup_weight": 2.0, "contrast_weight": 0.5, "distill_weight": 3.0}
    parts = ContrastiveTerms(torch.tensor(0.25).double(), torch.tensor(0.5).double())
    terms = gml_loss(COSINES, TARGETS, prior_of(0.6, 0.3, 0.1), parts, **options, **weights)
    assert terms.supervised.item() == pytest.approx(0.046403, abs=1e-6)
    assert terms.distillation.item() == pytest.approx(0.862165, abs=1e-6)
    assert (terms.contrastive, terms.temperature) == parts
    expected = 2 * terms.supervised + 0.5 * 0.75 + 3 * terms.distillation
    torch.testing.assert_close(terms.total, expected)
    bare = gml_loss(COSINES, TARGETS, prior_of(0.6, 0.3, 0.1), None, scale=30.0)
    assert bare.total == bare.supervised
    assert bare.contrastive == bare.distillation == 0


def test_a_class_without_keys_is_masked():
    """It takes no share; where it is the anchor's own the loss is 0 without gradient, never NaN."""
    q = Q.clone().requires_grad_()
    ell = class_log_likelihood(q, KEYS[:5], KEY_TARGETS[:5], num_classes=3, temperature=0.2)
    assert ell[:, 2].isneginf().all()
    assert ell[:, :2].isfinite().all()
    loss = bayes_cross_entropy(ell, TARGETS, prior_of(0.6, 0.3, 0.1))
    loss.backward()
    two = F.cross_entropy(ell[:2, :2] + prior_of(0.6, 0.3).log(), TARGETS[:2], reduction="sum")
    torch.testing.assert_close(loss, two / 3)  # the third anchor counts in the mean, with 0
    assert q.grad.isfinite().all()
    assert q.grad[2].abs().sum() == 0
    assert q.grad[:2].abs().sum() > 0


def test_own_image_alone_in_its_class_is_masked_in_the_temperature_term():
    case = {
        "q": Q,
        "keys": KEYS,
        "key_targets": KEY_TARGETS,
        "key_indexes": torch.tensor([10, 11, 12, 13, 14, 2]),
        "targets": TARGETS,
        "indexes": torch.arange(3),
        "prior": prior_of(0.6, 0.3, 0.1),
    }
    log_temperature = torch.tensor(math.log(0.2), dtype=torch.float64, requires_grad=True)
    terms = contrast(case, log_temperature.exp())
    assert terms.features.item() == pytest.approx(0.210499, abs=1e-6)
    assert terms.temperature.item() == pytest.approx(oracle_terms(case, 0.2, True))
    terms.temperature.backward()
    assert log_temperature.grad.isfinite()
    # Nothing but own images: no class is left, the loss is 0.
    case["key_indexes"], case["indexes"] = torch.zeros(6).long(), torch.zeros(3).long()
    assert contrast(case, 0.2).temperature == 0


def test_a_class_far_from_the_maximum_keeps_its_likelihood():
    """A shift by the row's maximum would underflow to log 0; here the value is exact."""
    q, keys = at_degrees(0).float(), at_degrees(0, 180).float()
    ell = class_log_likelihood(q, keys, torch.tensor([0, 1]), num_classes=2, temperature=0.005)
    torch.testing.assert_close(ell, torch.tensor([[200.0, -200.0]]))
    loss = bayes_cross_entropy(ell, torch.tensor([1]), torch.tensor([0.5, 0.5]))
    assert loss.item() == pytest.approx(400.0)


def test_weights_are_shares_of_the_mean():
    weights = torch.tensor([[1.0, 0, 2, 1, 1, 1]]).double().expand(3, 6)
    ell = class_log_likelihood(
        Q, KEYS, KEY_TARGETS, num_classes=3, temperature=0.2, weights=weights
    )
    e = (Q @ KEYS.T / 0.2).exp()
    torch.testing.assert_close(ell[:, 0], ((e[:, 0] + 2 * e[:, 2]) / 3).log())


def test_gradient_is_the_numerical_one():
    case = random_case(4, 9, 3, 3)
    inputs = [case[n].clone().requires_grad_() for n in ("q", "keys")]
    assert torch.autograd.gradcheck(
        lambda q, k: contrast({**case, "q": q, "keys": k}, 0.3).features, inputs, atol=1e-7
    )


def test_order_of_keys_and_anchors_does_not_matter():
    case = random_case()
    order, rows = torch.randperm(40), torch.randperm(16)
    moved = {
        k: v[order] if "key" in k else v[rows] if k in ("q", "targets", "indexes") else v
        for k, v in case.items()
    }
    for a, b in zip(contrast(case), contrast(moved), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("temperature", [0.01, 0.1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_low_temperature(dtype, temperature):
    case = random_case()
    full = contrast({k: v.float() if v.is_floating_point() else v for k, v in case.items()}, 0.1)
    q = case["q"].to(dtype).requires_grad_()
    half_case = {**case, "q": q, "keys": case["keys"].to(dtype), "prior": case["prior"].float()}
    half = contrastive_terms(**half_case, temperature=torch.tensor(temperature))
    (half.features + half.temperature).backward()
    assert half.features.dtype == half.temperature.dtype == torch.float32
    assert q.grad.isfinite().all()
    assert half.features.isfinite() and half.temperature.isfinite()
    if temperature == 0.1:
        torch.testing.assert_close(half.features, full.features, rtol=0.02, atol=0.02)
    logits = COSINES.to(dtype).requires_grad_()
    prior = torch.tensor([0.6, 0.3, 0.1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = logit_adjusted_cross_entropy(logits, TARGETS, prior, scale=1 / temperature)
        kd = distillation_loss(logits / temperature, TEACHER / temperature, temperature=4.0)
    assert loss.dtype == kd.dtype == torch.float32
    (loss + kd).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("start", [torch.ones(8, 4), torch.zeros(8, 4), torch.ones(1, 4)])
def test_collapse_and_a_batch_of_one_are_finite(start):
    q = F.normalize(start, dim=1).requires_grad_()
    log_temperature = torch.tensor(0.01).log().requires_grad_()
    n = len(start)
    terms = contrastive_terms(
        q,
        q.detach(),
        torch.arange(n) % 3,
        torch.arange(n),
        torch.arange(n) % 3,
        torch.arange(n),
        torch.tensor([0.8, 0.2, 0.0]),  # a class without training images
        temperature=log_temperature.exp(),
    )
    (terms.features + terms.temperature).backward()
    assert terms.features.isfinite() and terms.temperature.isfinite()
    assert q.grad.isfinite().all() and log_temperature.grad.isfinite()


def test_frozen_value():
    """The same numbers on every version; change them only with a line in the changelog."""
    terms = contrast(random_case())
    assert [t.item() for t in terms] == pytest.approx(
        [2.4547675731821634, 2.484969056610152], abs=1e-9
    )


def test_keys_that_are_not_there_do_not_count():
    """A GPU is given all slots of the queue with a mask of the filled ones."""
    g = torch.Generator().manual_seed(5)
    q, keys = (F.normalize(torch.randn(n, 4, generator=g).double(), dim=1) for n in (5, 9))
    q.requires_grad_()
    targets, key_targets = (torch.randint(3, (n,), generator=g) for n in (5, 9))
    indexes, key_indexes = torch.arange(5), torch.randint(8, (9,), generator=g)
    filled = torch.rand(9, generator=g) < 0.6
    keys[~filled], key_targets[~filled], key_indexes[~filled] = 0.0, -1, -1
    prior, temperature = torch.tensor([0.6, 0.3, 0.1]), torch.tensor(0.2).double()
    results = []
    for of_all in (True, False):
        kept = torch.ones_like(filled) if of_all else filled
        terms = contrastive_terms(
            q,
            keys[kept],
            key_targets[kept],
            key_indexes[kept],
            targets,
            indexes,
            prior,
            temperature=temperature,
            key_filled=filled if of_all else None,
        )
        results.append([*terms, *torch.autograd.grad(terms.features, q)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
