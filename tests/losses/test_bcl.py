# SPDX-License-Identifier: MIT
"""BCL's loss per image and its strengths against loops, values by hand, and wrong variants."""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F

from ltplugins.core.errors import UserError
from ltplugins.losses.bcl import boost_strengths, image_losses
from ltplugins.losses.terms.bases import nt_xent
from ltplugins.losses.terms.memory import update_memory


def pair(batch=7, dim=5, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    z_1 = torch.randn(batch, dim, generator=g, dtype=torch.float64)
    z_2 = z_1 + 0.6 * torch.randn(batch, dim, generator=g, dtype=torch.float64)
    return z_1.to(dtype), z_2.to(dtype), torch.arange(batch)


def oracle(z_1, z_2, temperature):
    """The official formula with loops: -log(pos / (pos + Ng)), the mean of an image's two rows."""
    batch = len(z_1)
    views = [v.tolist() for v in (*z_1, *z_2)]

    def similarity(a, b):
        norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        return math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / norms / temperature)

    out = []
    for i in range(batch):
        losses = []
        for anchor, other in ((i, i + batch), (i + batch, i)):
            positive = similarity(views[anchor], views[other])
            negatives = sum(
                similarity(views[anchor], views[j]) for j in range(2 * batch) if j % batch != i
            )
            losses.append(-math.log(positive / (positive + negatives)))
        out.append(sum(losses) / 2)
    return out


@pytest.mark.parametrize("temperature", [0.1, 0.2, 0.7])
def test_image_losses_are_the_oracles(temperature):
    z_1, z_2, indexes = pair()
    found = image_losses(z_1, z_2, indexes, temperature=temperature)
    assert found.tolist() == pytest.approx(oracle(z_1, z_2, temperature), rel=1e-9)
    # SimCLR's own loss is their mean.
    simclr = nt_xent(torch.cat([z_1, z_2]), indexes.repeat(2), temperature)
    assert float(found.mean()) == pytest.approx(float(simclr), rel=1e-9)


def without_temperature(z_1, z_2, temperature):
    return image_losses(z_1, z_2, torch.arange(len(z_1)), temperature=1.0)


def one_anchor(z_1, z_2, temperature):
    """The first view as anchor only."""
    logits = F.normalize(z_1) @ F.normalize(torch.cat([z_1, z_2])).T / temperature
    logits.fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, len(z_1) + torch.arange(len(z_1)), reduction="none")


def with_itself(z_1, z_2, temperature):
    """The anchor itself among the candidates."""
    z = F.normalize(torch.cat([z_1, z_2]))
    positives = torch.arange(2 * len(z_1)).roll(len(z_1))
    rows = F.cross_entropy(z @ z.T / temperature, positives, reduction="none")
    return rows.view(2, -1).mean(0)


def half_the_negatives(z_1, z_2, temperature):
    """The other view's images only, as in CLIP's loss."""
    logits = F.normalize(z_1) @ F.normalize(z_2).T / temperature
    own = torch.arange(len(z_1))
    rows = [F.cross_entropy(m, own, reduction="none") for m in (logits, logits.T)]
    return (rows[0] + rows[1]) / 2


def wrong_reshape(z_1, z_2, temperature):
    """Rows of neighbours averaged instead of the two views of an image."""
    rows = [one_anchor(a, b, temperature) for a, b in ((z_1, z_2), (z_2, z_1))]
    return torch.cat(rows).view(-1, 2).mean(1)


@pytest.mark.parametrize(
    "wrong", [without_temperature, one_anchor, with_itself, half_the_negatives, wrong_reshape]
)
def test_the_oracle_rejects_wrong_variants(wrong):
    z_1, z_2, _ = pair()
    expected = oracle(z_1, z_2, 0.2)
    assert wrong(z_1, z_2, 0.2).tolist() != pytest.approx(expected, rel=1e-2)


def test_a_value_by_hand():
    """Two images on two axes, tau 1: each anchor has its positive at cosine 1 and two at 0."""
    z = torch.eye(2)
    found = image_losses(3 * z, 5 * z, torch.tensor([4, 9]), temperature=1.0)
    assert found.tolist() == pytest.approx([math.log((math.e + 2) / math.e)] * 2)


def test_rows_of_one_image_are_positives_as_in_simclr():
    z_1, z_2, _ = pair()
    indexes = torch.tensor([0, 1, 2, 0, 3, 0, 4])
    found = image_losses(z_1, z_2, indexes, temperature=0.2)
    simclr = nt_xent(torch.cat([z_1, z_2]), indexes.repeat(2), 0.2)
    assert float(found.mean()) == pytest.approx(float(simclr), rel=1e-9)
    alone = image_losses(z_1, z_2, torch.arange(7), temperature=0.2)
    assert not torch.allclose(found, alone, rtol=1e-2)


def test_symmetry_scale_and_order():
    z_1, z_2, indexes = pair()
    found = image_losses(z_1, z_2, indexes, temperature=0.2)
    torch.testing.assert_close(image_losses(z_2, z_1, indexes, temperature=0.2), found)
    torch.testing.assert_close(image_losses(9 * z_1, z_2 / 7, indexes, temperature=0.2), found)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    shuffled = image_losses(z_1[order], z_2[order], indexes[order], temperature=0.2)
    torch.testing.assert_close(shuffled, found[order])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_finite_and_without_gradient(dtype, temperature):
    z_1, z_2, indexes = pair(dtype=dtype)
    z_1.requires_grad_()
    for second in (z_2, -z_1.detach(), z_1.detach().flip(0)):
        found = image_losses(z_1, second, indexes, temperature=temperature)
        assert found.dtype == torch.float32
        assert not found.requires_grad
        assert torch.isfinite(found).all()
        assert (found >= 0).all()
    collapsed = torch.ones_like(z_1)
    same = image_losses(collapsed, collapsed, indexes, temperature=temperature)
    assert same.tolist() == pytest.approx([math.log(13)] * 7, rel=1e-4)
    zero = image_losses(0 * collapsed, 0 * collapsed, indexes, temperature=temperature)
    assert torch.isfinite(zero).all()


def test_under_autocast_it_is_float32():
    z_1, z_2, indexes = pair(dtype=torch.float32)
    expected = image_losses(z_1, z_2, indexes, temperature=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        found = image_losses(z_1, z_2, indexes, temperature=0.05)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_batch_of_one():
    z = torch.ones(1, 3)
    assert image_losses(z, -z, torch.tensor([5]), temperature=0.2).tolist() == [0.0]


def test_shapes_that_do_not_fit():
    z_1, z_2, indexes = pair()
    with pytest.raises(UserError, match=r"two views of one shape and an index per row, got \(7"):
        image_losses(z_1, z_2[:5], indexes, temperature=0.2)
    with pytest.raises(UserError, match=r"and \(3,\)"):
        image_losses(z_1, z_2, indexes[:3], temperature=0.2)


def slow_strengths(memory):
    """The official formula on the images that were seen: z-scores, over the largest, halved."""
    mean, std = statistics.mean(memory), statistics.stdev(memory)
    scores = [(m - mean) / std for m in memory]
    largest = max(abs(s) for s in scores)
    return [(s / largest) / 2 + 0.5 for s in scores]


def test_strengths_are_the_official_formulas():
    memory = torch.rand(50, generator=torch.Generator().manual_seed(0)) * 3 + 2
    found = boost_strengths(memory, torch.ones(50, dtype=torch.bool))
    expected = slow_strengths(memory.tolist())
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.mean() == pytest.approx(0.5, abs=1e-6)
    assert found.dtype == torch.float32
    low, high = memory.min(), memory.max()
    wrong = (
        (memory - low) / (high - low),  # min-max
        torch.sigmoid((memory - memory.mean()) / memory.std()),
        1 - found,
        (memory - memory.median()) / (memory - memory.median()).abs().max() / 2 + 0.5,
    )
    for other in wrong:
        assert other.tolist() != pytest.approx(expected, abs=1e-3)


def test_strengths_by_hand():
    # Mean 2, distances -1, -1, 2: the last one sets the scale.
    found = boost_strengths(torch.tensor([1.0, 1.0, 4.0]), torch.ones(3, dtype=torch.bool))
    assert found.tolist() == pytest.approx([0.25, 0.25, 1.0])


def test_images_that_were_never_seen():
    memory = torch.tensor([1.0, 77.0, 1.0, 0.0, 4.0])
    filled = torch.tensor([True, False, True, False, True])
    assert boost_strengths(memory, filled).tolist() == pytest.approx([0.25, 0.0, 0.25, 0.0, 1.0])
    assert boost_strengths(memory, filled & False).tolist() == [0.0] * 5
    one = torch.tensor([False, True, False, False, False])
    assert boost_strengths(memory, one).tolist() == [0.0, 0.5, 0.0, 0.0, 0.0]
    assert boost_strengths(torch.zeros(0), torch.zeros(0, dtype=torch.bool)).tolist() == []


@pytest.mark.parametrize("value", [0.0, 0.1, 5.3])
def test_equal_losses_give_one_half(value):
    memory = torch.full((9,), value)
    everything = torch.ones(9, dtype=torch.bool)
    assert boost_strengths(memory, everything).tolist() == [0.5] * 9
    memory[3] *= 1 + 1e-7  # float32's last bit
    assert boost_strengths(memory, everything).tolist() == [0.5] * 9


def test_the_moving_average_is_the_official_rule():
    """First epoch: the loss itself. Later: 0.03 of the loss, 0.97 of what was there."""
    memory, filled = torch.zeros(4), torch.zeros(4, dtype=torch.bool)
    for values in ([2.0, 4.0], [3.0, 1.0]):
        rows = torch.tensor([2, 0, 6])  # 6 is an OOD image
        update_memory(memory, filled, rows, torch.tensor([*values, 9.0]), 0.97)
    assert memory.tolist() == pytest.approx([0.97 * 4 + 0.03 * 1, 0, 0.97 * 2 + 0.03 * 3, 0])
    assert filled.tolist() == [True, False, True, False]
