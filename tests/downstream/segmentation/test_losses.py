# SPDX-License-Identifier: MIT
"""Losses of pixels against slow ones written from their formulas, and wrong variants of these."""

import math

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.downstream.segmentation.losses import (
    adjusted_cross_entropy,
    build_loss,
    pixel_cross_entropy,
    total,
)
from ltplugins.downstream.segmentation.options import IGNORE, LossConfig

COUNTS = torch.tensor([900, 90, 10])


def batch(seed=0, size=5):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, size, size, generator=generator)
    masks = torch.randint(0, 3, (2, size, size), generator=generator)
    masks[0, 0] = IGNORE
    return logits, masks


def slow(logits, masks, counts, tau, *, ignore=IGNORE, smooth=0.0):
    """A loop over pixels, in Python's numbers."""
    losses = []
    shares = [(n + smooth) / (sum(counts) + smooth * len(counts)) for n in counts]
    for b in range(len(masks)):
        for y in range(masks.shape[1]):
            for x in range(masks.shape[2]):
                label = int(masks[b, y, x])
                if label == ignore:
                    continue
                moved = [
                    float(v) + tau * math.log(p)
                    for v, p in zip(logits[b, :, y, x], shares, strict=True)
                ]
                losses.append(math.log(sum(math.exp(v) for v in moved)) - moved[label])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_adjusted_cross_entropy(tau):
    logits, masks = batch()
    found = adjusted_cross_entropy(logits, masks, COUNTS, tau=tau)
    assert found.item() == pytest.approx(slow(logits, masks, COUNTS.tolist(), tau), rel=1e-5)
    wrong = [
        slow(logits, masks, COUNTS.tolist(), 0.0),  # no prior
        slow(logits, masks, COUNTS.tolist(), -tau),  # the other way
        slow(logits, masks.where(masks != IGNORE, torch.tensor(0)), COUNTS.tolist(), tau),
        slow(logits, masks, COUNTS.tolist(), tau, smooth=100.0),
    ]
    assert all(abs(found.item() - value) > 1e-3 for value in wrong)


def test_cross_entropy_is_the_adjusted_one_of_an_even_prior():
    logits, masks = batch()
    plain = pixel_cross_entropy(logits, masks)
    assert plain.item() == pytest.approx(slow(logits, masks, [1, 1, 1], 1.0), rel=1e-5)
    torch.testing.assert_close(plain, adjusted_cross_entropy(logits, masks, torch.tensor([7] * 3)))


def test_by_hand():
    """Even logits: the loss of a rare pixel is -log of its share, whatever tau's sign would do."""
    logits, masks = torch.zeros(1, 3, 1, 1), torch.tensor([[[2]]])
    assert adjusted_cross_entropy(logits, masks, COUNTS).item() == pytest.approx(math.log(100))


def test_a_class_without_a_training_pixel():
    logits, masks = batch()
    logits.requires_grad_()
    found = adjusted_cross_entropy(logits, masks, torch.tensor([900, 100, 0]))
    found.backward()
    assert torch.isfinite(found) and torch.isfinite(logits.grad).all()
    assert logits.grad[:, 2].abs().sum() > 0


@pytest.mark.parametrize("name", ["ce", "adjusted", "dice", "lovasz"])
def test_where_no_pixel_has_a_class(name):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = build_loss(LossConfig.from_scalar(name), COUNTS)
    found = total(loss(logits, torch.full((1, 4, 4), IGNORE)))
    found.backward()
    assert found.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", ["ce", "adjusted", "dice", "lovasz"])
def test_what_is_ignored_has_no_part(name):
    logits, masks = batch()
    other = logits.clone()
    other[0, :, 0] = 50 * torch.randn(3, 5)
    loss = build_loss(LossConfig.from_scalar(name), COUNTS)
    torch.testing.assert_close(loss(logits, masks)[name], loss(other, masks)[name])
    assert not torch.isclose(loss(logits, masks)[name], loss(other.flip(-1), masks)[name])


@pytest.mark.parametrize("name", ["ce", "dice", "lovasz"])
def test_a_perfect_prediction_is_the_optimum(name):
    _, masks = batch(size=8)
    masks = masks.where(masks != IGNORE, torch.tensor(1))
    logits = 40.0 * torch.nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2).float()
    loss = build_loss(LossConfig.from_scalar(name), COUNTS)
    assert loss(logits, masks)[name].item() == pytest.approx(0.0, abs=1e-4)
    assert loss(logits.roll(1, 1), masks)[name].item() > 0.5


def test_dice_of_two_classes_by_hand():
    """Class 0: 2 (1 + 1) / (2 + 3) with hard predictions of 3 and 1 pixels, truth 2 and 2."""
    masks = torch.tensor([[[0, 0, 1, 1]]])
    found = torch.tensor([[[0, 0, 0, 1]]])
    logits = 60.0 * torch.nn.functional.one_hot(found, 2).permute(0, 3, 1, 2).float()
    loss = build_loss(LossConfig(dice=1.0), torch.tensor([2, 2]))(logits, masks)["dice"]
    assert loss.item() == pytest.approx(1 - (4 / 5 + 2 / 3) / 2, abs=1e-4)


def test_a_sum():
    logits, masks = batch()
    terms = build_loss(LossConfig(ce=1.0, dice=0.5), COUNTS)(logits, masks)
    alone = {k: build_loss(LossConfig.from_scalar(k), COUNTS)(logits, masks)[k] for k in terms}
    assert list(terms) == ["ce", "dice"]
    torch.testing.assert_close(total(terms), alone["ce"] + 0.5 * alone["dice"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["ce", "adjusted", "dice", "lovasz"])
def test_half_precision_is_widened(dtype, name):
    logits, masks = batch()
    found = build_loss(LossConfig.from_scalar(name), COUNTS)(100 * logits.to(dtype), masks)[name]
    assert found.dtype == torch.float32 and torch.isfinite(found)


def test_unknown_and_empty_losses():
    with pytest.raises(UserError, match=r"unknown loss 'adjustd'. Did you mean 'adjusted'"):
        LossConfig.from_scalar("adjustd")
    with pytest.raises(UserError, match="a weight above 0 of one of ce"):
        LossConfig()
