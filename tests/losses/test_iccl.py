# SPDX-License-Identifier: MIT
"""ICCL-style losses against the spec's numbers, a nested-loop oracle and wrong variants.

There is no official code to take a number from.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from ltplugins.core.errors import UserError
from ltplugins.losses.iccl import (
    balance_loss,
    centroid_loss,
    curriculum_weights,
    mix_images,
    mixup_cross_entropy,
    update_centroids,
)
from ltplugins.losses.terms.distillation import distillation_loss


def at_degrees(*angles):
    """Unit vectors in the plane."""
    radians = torch.tensor(angles, dtype=torch.float64) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def shares(*values):
    return torch.tensor(values, dtype=torch.float64)


# The spec's example: centroids at 0, 120 and 240 degrees, z at 40, classes 0 and 1, lambda .7.
CENTROIDS, Z = at_degrees(0, 120, 240), at_degrees(40)
A, B, LAM = torch.tensor([0]), torch.tensor([1]), shares(0.7)


def random_case(n=12, classes=5, dim=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dim, generator=g, dtype=torch.float64)
    centroids = F.normalize(torch.randn(classes, dim, generator=g, dtype=torch.float64), dim=1)
    a, b = (torch.randint(classes, (n,), generator=g) for _ in range(2))
    return z, centroids, a, b, torch.rand(n, generator=g, dtype=torch.float64)


def oracle(z, centroids, a, b, lam, temperature, filled=None):
    """The loss with Python floats."""
    rows, protos, total = z.tolist(), centroids.tolist(), 0.0
    known = [True] * len(protos) if filled is None else filled.tolist()
    for i, row in enumerate(rows):
        length = math.hypot(*row)
        weights = []
        for k, proto in enumerate(protos):
            dot = sum(x / length * y for x, y in zip(row, proto, strict=True))
            weights.append(math.exp(dot / temperature) if known[k] else 0.0)
        for target, share in ((int(a[i]), float(lam[i])), (int(b[i]), 1 - float(lam[i]))):
            if known[target]:
                total -= share * math.log(weights[target] / sum(weights))
    return total / len(rows)


def test_worked_example_of_the_spec():
    log_p = (Z @ CENTROIDS.T / 0.5).log_softmax(dim=1)[0]
    assert log_p.tolist() == pytest.approx([-0.291775, -1.476568, -3.703249], abs=1e-6)
    for temperature, expected in [(0.5, 0.647213), (0.1, 1.779860), (0.07, 2.539052)]:
        loss = centroid_loss(Z, CENTROIDS, A, B, LAM, temperature=temperature)
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_by_hand():
    # Logits 1 and 0: log P = 1 - log(e + 1) and -log(e + 1), so L = log(e + 1) - lambda.
    loss = centroid_loss(at_degrees(0), at_degrees(0, 90), A, B, shares(0.25), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(math.e + 1) - 0.25)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("missing", [(), (1, 3), (0, 1, 2, 3, 4)])
def test_loss_equals_the_oracle(missing, seed):
    case = random_case(seed=seed)
    filled = torch.tensor([k not in missing for k in range(5)])
    loss = centroid_loss(*case, temperature=0.2, filled=filled)
    assert loss.item() == pytest.approx(oracle(*case, 0.2, filled), rel=1e-10, abs=1e-12)
    if not missing:
        torch.testing.assert_close(centroid_loss(*case, temperature=0.2), loss)


def test_oracle_rejects_wrong_variants():
    z, centroids, a, b, lam = case = random_case()
    right = oracle(*case, 0.2)
    unit = F.normalize(z, dim=1)

    def loss(logits, lam, targets=(a, b)):
        log_p = logits.log_softmax(dim=1)
        picked = [log_p.gather(1, t[:, None])[:, 0] for t in targets]
        return -(lam * picked[0] + (1 - lam) * picked[1]).mean().item()

    logits = unit @ centroids.T / 0.2
    assert loss(logits, lam) == pytest.approx(right)
    wrong = [
        loss(unit @ centroids.T, lam),  # no temperature
        loss(logits, 1 - lam),  # the shares swapped
        loss(logits, torch.ones_like(lam)),  # only the class-agnostic image's class
        loss(z @ centroids.T / 0.2, lam),  # z not normalised
        loss(logits, lam, (b, b)),  # only the class-aware one's
    ]
    for variant in wrong:
        assert abs(variant - right) > 1e-2


def test_the_share_decides_between_the_two_classes():
    z, centroids, a, b, lam = random_case()
    options = {"temperature": 0.2}
    one = torch.ones_like(lam)
    logits = F.normalize(z, dim=1) @ centroids.T / 0.2
    own = centroid_loss(z, centroids, a, b, one, **options)
    other = centroid_loss(z, centroids, a, b, 0 * one, **options)
    torch.testing.assert_close(own, F.cross_entropy(logits, a))
    torch.testing.assert_close(other, F.cross_entropy(logits, b))
    # Linear in lambda, independent of it where both classes are one, symmetric in the roles.
    torch.testing.assert_close(
        centroid_loss(z, centroids, a, b, 0.3 * one, **options), 0.3 * own + 0.7 * other
    )
    torch.testing.assert_close(centroid_loss(z, centroids, a, a, lam, **options), own)
    torch.testing.assert_close(
        centroid_loss(z, centroids, b, a, 1 - lam, **options),
        centroid_loss(z, centroids, a, b, lam, **options),
    )
    torch.testing.assert_close(centroid_loss(37 * z, centroids, a, b, one, **options), own)


def test_a_class_without_centroid_neither_pulls_nor_pushes():
    z = at_degrees(40).requires_grad_()
    filled = torch.tensor([False, True, False])
    # Class 0 has none, and class 1 is the only candidate: nothing to learn from this row.
    loss = centroid_loss(z, CENTROIDS, A, B, LAM, temperature=0.1, filled=filled)
    loss.backward()
    assert loss == 0
    assert torch.equal(z.grad, torch.zeros_like(z))
    # A row whose one class has a centroid keeps its own share, unscaled.
    two = torch.tensor([True, True, False])
    part = centroid_loss(Z, CENTROIDS, A, torch.tensor([2]), LAM, temperature=0.5, filled=two)
    log_p = (Z @ CENTROIDS[:2].T / 0.5).log_softmax(dim=1)[0, 0]
    torch.testing.assert_close(part, -0.7 * log_p)


def test_gradient_reaches_z_and_no_centroid():
    z, centroids, a, b, lam = random_case()
    z.requires_grad_()
    centroids.requires_grad_()
    centroid_loss(z, centroids, a, b, lam, temperature=0.2).backward()
    assert centroids.grad is None
    assert torch.autograd.gradcheck(
        lambda x: centroid_loss(x, centroids, a, b, lam, temperature=0.2), (z,), atol=1e-7
    )


@pytest.mark.parametrize("temperature", [0.01, 0.1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_low_temperature(dtype, temperature):
    z, centroids, a, b, lam = random_case()
    z, centroids, lam = z.float(), centroids.float(), lam.float()
    full = centroid_loss(z, centroids, a, b, lam, temperature=temperature)
    leaf = z.to(dtype).requires_grad_()
    half = centroid_loss(leaf, centroids, a, b, lam, temperature=temperature)
    half.backward()
    assert half.dtype == torch.float32
    assert torch.isfinite(leaf.grad).all()
    torch.testing.assert_close(half, full, rtol=2e-2, atol=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(
            centroid_loss(z, centroids, a, b, lam, temperature=temperature), full
        )


@pytest.mark.parametrize("start", [torch.ones(8, 6), torch.zeros(8, 6), torch.ones(1, 6)])
def test_collapse_zero_vectors_and_a_batch_of_one_are_finite(start):
    _, centroids, a, b, lam = random_case(len(start))
    z = start.clone().requires_grad_()
    loss = centroid_loss(z, centroids, a, b, lam, temperature=0.01)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_mixing_images():
    first, second = torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    mixed = mix_images(first, second, torch.tensor([1.0, 0.25]))
    assert mixed[0].unique().tolist() == [1.0]
    assert mixed[1].unique().tolist() == [0.25]
    assert mix_images(first.half(), second.half(), torch.tensor([1.0, 0.25])).dtype == torch.half


def test_mixup_cross_entropy_is_linear_in_the_share():
    g = torch.Generator().manual_seed(0)
    logits, lam = torch.randn(6, 4, generator=g).double(), torch.rand(6, generator=g).double()
    a, b = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 1, 0, 2, 2, 0])
    expected = 0.0
    for row, x, y, share in zip(logits.tolist(), a.tolist(), b.tolist(), lam.tolist(), strict=True):
        norm = math.log(sum(map(math.exp, row)))
        expected += (share * (norm - row[x]) + (1 - share) * (norm - row[y])) / 6
    assert mixup_cross_entropy(logits, a, b, lam).item() == pytest.approx(expected)
    torch.testing.assert_close(
        mixup_cross_entropy(logits, a, b, torch.ones(6)), F.cross_entropy(logits, a)
    )
    half = mixup_cross_entropy(logits.bfloat16(), a, b, lam)
    assert half.dtype == torch.float32


def test_curriculum_moves_from_the_clean_to_the_mixed_branch():
    assert curriculum_weights(0.0, "parabolic-style") == (1.0, 0.0)
    assert curriculum_weights(0.5, "parabolic-style") == (0.75, 0.25)
    assert curriculum_weights(0.25, "linear-style") == (0.75, 0.25)
    assert curriculum_weights(0.7, "constant") == (1.0, 1.0)
    with pytest.raises(UserError, match="Did you mean 'linear-style'"):
        curriculum_weights(0.0, "linear")


ONE = {"updates": torch.tensor([1]), "targets": torch.tensor([0])}


def test_ema_example_of_the_spec():
    new, updates = update_centroids(
        at_degrees(0), z=at_degrees(90), momentum=0.9, bias_correction=False, **ONE
    )
    assert new[0].tolist() == pytest.approx([0.993884, 0.110432], abs=1e-6)
    assert updates.tolist() == [2]


def test_ema_is_of_the_batch_mean_and_its_order_does_not_count():
    ones = torch.zeros(2, dtype=torch.int64)
    z = at_degrees(80, 100)
    options = {"momentum": 0.9, "bias_correction": False}
    new, _ = update_centroids(at_degrees(0), ONE["updates"], z, ones, **options)
    mean = F.normalize(shares(0.9, 0.098481)[None], dim=1)
    torch.testing.assert_close(new, mean, atol=1e-6, rtol=0)
    swapped, _ = update_centroids(at_degrees(0), ONE["updates"], z.flip(0), ones, **options)
    torch.testing.assert_close(swapped, new)
    # One by one gives the spec's other numbers, so the test can tell the two forms apart.
    both = []
    for order in (z, z.flip(0)):
        c, u = at_degrees(0), ONE["updates"]
        for row in order:
            c, u = update_centroids(c, u, row[None], ones[:1], **options)
        both.append(c)
    assert not torch.allclose(both[0], new, atol=1e-3)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_centroids_are_unit_start_at_the_first_observation_and_wait_for_absent_classes():
    g = torch.Generator().manual_seed(0)
    centroids, updates = torch.full((4, 3), 7.0), torch.tensor([0, 2, 5, 0])
    centroids[1:3] = F.normalize(torch.randn(2, 3, generator=g), dim=1)
    z = torch.randn(5, 3, generator=g, requires_grad=True)
    targets = torch.tensor([0, 1, 0, 0, -1])
    new, count = update_centroids(centroids, updates, z, targets, 0.9)
    assert not new.requires_grad
    unit = F.normalize(z.detach(), dim=1)
    first = F.normalize(unit[[0, 2, 3]].mean(dim=0), dim=0)
    torch.testing.assert_close(new[0], first)  # not a mixture with what lay there before
    torch.testing.assert_close(new[:2].norm(dim=1), torch.ones(2))
    assert torch.equal(new[2:], centroids[2:])  # absent; the last one still has none
    assert count.tolist() == [1, 3, 5, 0]
    assert torch.equal(centroids[0], torch.full((3,), 7.0))  # the input is left alone


def test_embeddings_that_cancel_leave_the_centroid():
    centroids, updates = at_degrees(0), torch.tensor([0])
    new, count = update_centroids(centroids, updates, at_degrees(30, 210), torch.tensor([0, 0]), 0)
    assert torch.equal(new, centroids)
    assert count.tolist() == [0]


def test_one_image_a_class_without_momentum_gives_infonce():
    z = F.normalize(random_case(5)[0], dim=1)
    ids = torch.arange(5)
    new, _ = update_centroids(torch.zeros(5, 6).double(), 0 * ids + 3, z, ids, 0.0)
    torch.testing.assert_close(new, z)
    loss = centroid_loss(z, new, ids, ids.flip(0), torch.ones(5), temperature=0.3)
    torch.testing.assert_close(loss, F.cross_entropy(z @ z.T / 0.3, ids))


def test_bias_correction_forgets_what_a_tail_class_was_first():
    """The spec's 0.999^1000 = 37 %: a class seen 1000 times still points where it began."""
    start, now = at_degrees(0), at_degrees(90)
    angles = {}
    for correct in (False, True):
        c, u = update_centroids(torch.zeros(1, 2).double(), torch.tensor([0]), start, A, 0.999)
        for _ in range(1000):
            c, u = update_centroids(c, u, now, A, 0.999, bias_correction=correct)
        angles[correct] = math.degrees(math.atan2(float(c[0, 1]), float(c[0, 0])))
        assert u.tolist() == [1001]
    assert angles[False] < 70
    assert angles[True] > 89
    # The plain mean as long as the window is not full: 1/2 after the second observation.
    c, _ = update_centroids(start, ONE["updates"], now, A, 0.999)
    torch.testing.assert_close(c, at_degrees(45))
    c, _ = update_centroids(start, torch.tensor([10_000]), now, A, 0.9)  # full: the EMA itself
    assert c[0].tolist() == pytest.approx([0.993884, 0.110432], abs=1e-6)


def test_distillation_by_hand_and_by_definition():
    # Two classes, logits 0 and T log 3 against 0 and 0: p = (1/4, 3/4), q = (1/2, 1/2).
    teacher, student = shares(0.0, 2 * math.log(3))[None], shares(0.0, 0.0)[None]
    kl = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    loss = distillation_loss(student, teacher, temperature=2.0)
    assert loss.item() == pytest.approx(4 * kl)
    assert distillation_loss(teacher, teacher, temperature=2.0).item() == pytest.approx(0)
    reverse = distillation_loss(teacher, student, temperature=2.0)
    assert abs(reverse.item() - loss.item()) > 0.01  # KL(teacher || student), not the other way


def test_balance_loss_weighs_labels_and_teacher():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=g, requires_grad=True)
    teacher = torch.randn(6, 4, generator=g, requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3, 0, 1])
    plain = F.cross_entropy(logits, targets)
    distilled = distillation_loss(logits, teacher, temperature=3.0)
    loss = balance_loss(logits, targets, teacher, weight=0.25, temperature=3.0)
    torch.testing.assert_close(loss, 0.75 * plain + 0.25 * distilled)
    loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(balance_loss(logits, targets), plain)
    half = balance_loss(
        logits.bfloat16(), targets, teacher.bfloat16(), weight=0.5, temperature=0.01
    )
    assert half.dtype == torch.float32
    assert torch.isfinite(half)


def test_frozen_value():
    """The same number on every version; change it only with a line in the changelog."""
    loss = centroid_loss(*random_case(64, 10, 16, seed=7), temperature=0.1)
    assert loss.item() == pytest.approx(4.468242823261635, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: centroid_loss(Z, CENTROIDS, A, B, LAM, temperature=0), "temperature: expected"),
        (lambda: centroid_loss(Z, CENTROIDS[:, :1], A, B, LAM, temperature=1), r"\(3, 1\)"),
        (lambda: centroid_loss(Z, CENTROIDS, A, B, LAM[:0], temperature=1), r"lam \(0,\)"),
        (
            lambda: centroid_loss(Z[:0], CENTROIDS, A[:0], B[:0], LAM[:0], temperature=1),
            "N >= 1",
        ),
        (lambda: distillation_loss(Z, Z, temperature=-1), "above 0, got -1"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(UserError, match=text):
        call()
