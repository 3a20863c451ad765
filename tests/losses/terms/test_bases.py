# SPDX-License-Identifier: MIT
"""The bases' losses against slow oracles; wrong variants that the oracles must reject."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.host.builtin.byol import embedding_std
from ltplugins.losses.terms import bases as losses
from ltplugins.losses.terms import nt_xent


def random_z(n: int = 6, d: int = 5, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def nt_xent_oracle(z: Tensor, ids: Tensor, temperature: float) -> float:
    """Nested loops, from SimCLR's eq. 1 with a sum over positives inside the logarithm."""
    z = F.normalize(z, dim=-1)
    total, anchors = 0.0, 0
    for i in range(len(z)):
        above, below = 0.0, 0.0
        for j in range(len(z)):
            if i == j:
                continue
            weight = math.exp(float((z[i] @ z[j]).detach()) / temperature)
            below += weight
            above += weight if ids[i] == ids[j] else 0.0
        if above:
            total, anchors = total - math.log(above / below), anchors + 1
    return total / max(anchors, 1)


PAIRS = torch.tensor([0, 1, 2, 0, 1, 2])
LABELS = torch.tensor([0, 0, 1, 1, 1, 5])  # the last has no positive


@pytest.mark.parametrize("ids", [PAIRS, LABELS])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_equals_the_oracle(ids: Tensor, temperature: float) -> None:
    z = random_z()
    expected = nt_xent_oracle(z, ids, temperature)
    assert losses.nt_xent(z, ids, temperature).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("labels", ["two views", "few classes", "many alone"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nt_xent_of_symmetric_blocks_equals_anchors_in_turn(
    labels: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several blocks, the last not full; value and gradient of the two forms."""
    n = 600
    g = torch.Generator().manual_seed(1)
    ids = {
        "two views": torch.arange(n // 2).repeat(2),
        "few classes": torch.randint(7, (n,), generator=g),
        "many alone": torch.cat([torch.arange(n - 10), torch.arange(10)]),
    }[labels]
    z = random_z(n, 16).to(dtype)

    def value_and_gradient(symmetric: bool) -> tuple[Tensor, Tensor]:
        leaf = z.clone().requires_grad_()
        monkeypatch.setattr(nt_xent, "_MOST_VIEWS", n if symmetric else n - 1)
        loss = losses.nt_xent(leaf, ids, 0.1)
        form = "_SymmetricNTXentBackward" if symmetric else "_NTXentBackward"
        assert type(loss.grad_fn.next_functions[0][0]).__name__ == form  # type: ignore[union-attr]
        (3 * loss).backward()
        assert leaf.grad is not None
        return loss.detach(), leaf.grad

    tolerance = {"rtol": 1e-10, "atol": 1e-13} if dtype == torch.float64 else {}
    for mine, other in zip(value_and_gradient(True), value_and_gradient(False), strict=True):
        torch.testing.assert_close(mine, other, **tolerance)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nt_xent_of_one_process_takes_the_symmetric_form(dtype: torch.dtype) -> None:
    """Gathered by a single process, the candidates are the anchors, in half precision too."""
    z = random_z().to(dtype).requires_grad_()
    loss = losses.nt_xent(z, PAIRS, 0.2, all_z=z, all_ids=PAIRS)
    form = loss.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
    assert type(form).__name__ == "_SymmetricNTXentBackward"


def test_nt_xent_gradient_is_that_of_its_value() -> None:
    for ids in (PAIRS, LABELS):
        z = random_z().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, i=ids: losses.nt_xent(x, i, 0.3), (z,))


@pytest.mark.parametrize("temperature", [0.03, 0.01])
def test_nt_xent_of_opposite_views_at_a_low_temperature(temperature: float) -> None:
    """Where exp((cos - 1) / T) of all but one pair underflows float32: no infinity, no NaN."""
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.01], [0.0, 1.0], [0.01, -1.0]])
    ids = torch.tensor([0, 0, 1, 1])
    loss = losses.nt_xent(z.requires_grad_(), ids, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(nt_xent_oracle(z.double(), ids, temperature), rel=1e-4)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def no_temperature(z: Tensor, ids: Tensor, temperature: float) -> Tensor:
    return losses.nt_xent(z, ids, 1.0)


def self_as_positive(z: Tensor, ids: Tensor, temperature: float) -> Tensor:
    logits = F.normalize(z, dim=-1) @ F.normalize(z, dim=-1).T / temperature
    positive = ids[:, None] == ids[None]
    return (logits.logsumexp(1) - logits.masked_fill(~positive, -torch.inf).logsumexp(1)).mean()


def half_the_negatives(z: Tensor, ids: Tensor, temperature: float) -> Tensor:
    keep = torch.tensor([0, 1, 3, 4])
    return losses.nt_xent(z[keep], ids[keep], temperature)


@pytest.mark.parametrize("wrong", [no_temperature, self_as_positive, half_the_negatives])
def test_the_oracle_rejects_wrong_variants(wrong: Callable[..., Tensor]) -> None:
    z = random_z()
    expected = nt_xent_oracle(z, PAIRS, 0.2)
    assert wrong(z, PAIRS, 0.2).item() != pytest.approx(expected, rel=1e-3)


def test_nt_xent_by_hand() -> None:
    """Two images, views equal, images orthogonal, T = 1: log(1 + 2 / e) for every anchor."""
    z = torch.eye(2, dtype=torch.float64).repeat(2, 1)
    value = losses.nt_xent(z, torch.tensor([0, 1, 0, 1]), 1.0).item()
    assert value == pytest.approx(math.log(1 + 2 / math.e), rel=1e-12)


def test_nt_xent_ignores_scale_and_order() -> None:
    z = random_z()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    value = losses.nt_xent(z, PAIRS, 0.2)
    torch.testing.assert_close(losses.nt_xent(7 * z[order], PAIRS[order], 0.2), value)


def test_nt_xent_over_joined_candidates() -> None:
    """Local anchors with an offset: two halves average to the whole."""
    z = random_z()
    halves = [
        losses.nt_xent(z[a:b], PAIRS[a:b], 0.2, all_z=z, all_ids=PAIRS, offset=a)
        for a, b in ((0, 3), (3, 6))
    ]
    torch.testing.assert_close(sum(halves) / 2, losses.nt_xent(z, PAIRS, 0.2))


@pytest.mark.parametrize("ids", [PAIRS, LABELS, torch.arange(6)])
def test_nt_xent_gradient(ids: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed form against differences, for anchors of one rank, four and two at a time."""
    monkeypatch.setattr(nt_xent, "_ANCHORS", 4)
    everything = random_z().requires_grad_()
    anchors = everything[2:].detach().clone().requires_grad_()

    def loss(z: Tensor, all_z: Tensor) -> Tensor:
        return losses.nt_xent(z, ids[2:], 0.3, all_z=all_z, all_ids=ids, offset=2)

    torch.autograd.gradcheck(loss, (anchors, everything))


@pytest.mark.parametrize("ids", [PAIRS, LABELS])
def test_nt_xent_does_not_depend_on_the_number_at_a_time(
    ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = losses.nt_xent(random_z(), ids, 0.2)
    for anchors in (1, 4, 5):
        monkeypatch.setattr(nt_xent, "_ANCHORS", anchors)
        torch.testing.assert_close(losses.nt_xent(random_z(), ids, 0.2), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nt_xent_is_finite_at_temperature_001(dtype: torch.dtype) -> None:
    z = random_z(8, 16).to(dtype).requires_grad_()
    loss = losses.nt_xent(z, torch.arange(4).repeat(2), 0.01)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_nt_xent_under_autocast_is_float32() -> None:
    z = random_z(8, 16).float()
    ids = torch.arange(4).repeat(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = losses.nt_xent(z, ids, 0.1)
    assert torch.equal(inside, losses.nt_xent(z, ids, 0.1))


def test_nt_xent_gradient_at_collapse_is_finite() -> None:
    z = torch.ones(6, 5, requires_grad=True)
    loss = losses.nt_xent(z, PAIRS, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(5), rel=1e-5)
    assert z.grad.isfinite().all()


def test_nt_xent_without_positives_is_zero() -> None:
    for n in (1, 3):
        z = random_z(n).requires_grad_()
        loss = losses.nt_xent(z, torch.arange(n), 0.1)
        loss.backward()
        assert loss.item() == 0.0
        assert not z.grad.any()


def test_regression_and_cosine_by_hand() -> None:
    p, z = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    assert losses.regression_loss(p, z).item() == pytest.approx(2 - math.sqrt(2))
    assert losses.negative_cosine(p, z).item() == pytest.approx(-math.sqrt(0.5))


@pytest.mark.parametrize("loss", [losses.regression_loss, losses.negative_cosine])
def test_no_gradient_into_the_target(loss: Callable[..., Tensor]) -> None:
    p, z = random_z().requires_grad_(), random_z(seed=1).requires_grad_()
    loss(p, z).backward()
    assert p.grad is not None
    assert z.grad is None


def test_queue_nce_equals_the_oracle() -> None:
    query, key = (F.normalize(random_z(3, seed=s), dim=-1) for s in (0, 1))
    queue = F.normalize(random_z(7, seed=2), dim=-1)
    total = 0.0
    for q, k in zip(query, key, strict=True):
        positive = math.exp(float(q @ k) / 0.2)
        total -= math.log(positive / (positive + sum(math.exp(float(q @ n) / 0.2) for n in queue)))
    value = losses.queue_nce(query, key, queue.T, 0.2).item()
    assert value == pytest.approx(total / 3, rel=1e-10)


def test_barlow_twins_equals_the_oracle() -> None:
    z_1, z_2 = random_z(8, 3), random_z(8, 3, seed=1)
    unit = [(z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (z_1, z_2)]
    expected = 0.0
    for i in range(3):
        for j in range(3):
            c = float((unit[0][:, i] * unit[1][:, j]).mean())
            expected += (c - 1) ** 2 if i == j else 0.01 * c**2
    value = losses.barlow_twins(z_1, z_2, 0.01, 0.1).item()
    assert value == pytest.approx(0.1 * expected, rel=1e-10)
    swapped = losses.barlow_twins(z_2, z_1, 0.01, 0.1).item()
    assert value == pytest.approx(swapped)  # symmetric in the views


def test_vicreg_terms_by_hand() -> None:
    z = torch.tensor([[0.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    # variances 2 and 0.5; only the second falls short of 1. Covariance 1, squared twice, over D=2.
    assert losses.vicreg_variance(z).item() == pytest.approx((1 - math.sqrt(0.5 + 1e-4)) / 2)
    assert losses.vicreg_covariance(z).item() == pytest.approx(1.0)
    assert losses.vicreg_invariance(z, z + 3).item() == pytest.approx(9.0)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: losses.barlow_twins(z, z.clone(), 0.005, 0.1),
        losses.vicreg_variance,
        losses.vicreg_covariance,
    ],
)
def test_gradients_at_collapse_are_finite(loss: Callable[[Tensor], Tensor]) -> None:
    z = torch.ones(4, 3, requires_grad=True)
    loss(z).backward()
    assert z.grad.isfinite().all()


def test_embedding_std_tells_collapse() -> None:
    assert embedding_std([torch.ones(4, 3)]).item() == pytest.approx(0.0)
    assert embedding_std([random_z(64, 3)]).item() > 0.4
