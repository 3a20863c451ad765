# SPDX-License-Identifier: MIT
"""SDCLR's mask against a sort in Python and the official code; its two backward passes are one."""

import itertools
import math

import pytest
import torch
from torch import nn

from ltplugins.losses.sdclr import magnitude_masks, sparsity
from ltplugins.losses.terms.bases import negative_cosine, nt_xent

SHAPES = ((8, 3, 3, 3), (16, 8, 3, 3), (4, 16, 1, 1))


def random_weights(seed=7, scales=(1.0, 0.5, 2.0), dtype=torch.float32):
    """Three layers of different scale: a ranking within layers gives another mask."""
    g = torch.Generator().manual_seed(seed)
    pairs = zip(scales, SHAPES, strict=True)
    return [s * torch.randn(shape, generator=g).to(dtype) for s, shape in pairs]


def oracle(weights, ratio):
    """Sort all magnitudes in Python, keep what is not below the one at ceil(ratio * total)."""
    flat = sorted(abs(x) for weight in weights for x in weight.flatten().tolist())
    threshold = flat[min(math.ceil(ratio * len(flat)), len(flat) - 1)]
    kept = [[abs(x) >= threshold for x in w.flatten().tolist()] for w in weights]
    return [torch.tensor(m).view(w.shape) for m, w in zip(kept, weights, strict=True)]


def test_by_hand():
    weights = [torch.tensor([[0.1, -5.0], [0.3, -0.2]]), torch.tensor([1.0, -0.4])]
    # ceil(.5 * 6) = 3 go: .1, .2, .3.
    first, second = magnitude_masks(weights, 0.5)
    assert first.tolist() == [[False, True], [False, False]]
    assert second.tolist() == [True, True]
    assert sparsity([first, second]) == pytest.approx(0.5)
    # ceil(.51 * 6) = 4: .4 goes too.
    assert [int(m.sum()) for m in magnitude_masks(weights, 0.51)] == [1, 1]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_masks_equal_the_oracle(seed, ratio):
    weights = random_weights(seed)
    masks = magnitude_masks(weights, ratio)
    for mask, expected, weight in zip(masks, oracle(weights, ratio), weights, strict=True):
        assert mask.dtype == torch.bool
        assert mask.shape == weight.shape
        assert torch.equal(mask, expected)


@pytest.mark.parametrize(
    ("ratio", "kept", "share"),
    [
        (0.0, [216, 1152, 64], 0.0),
        (0.3, [183, 763, 56], 0.30027931928634644),
        (0.9, [55, 55, 33], 0.9001396894454956),
        (0.999, [0, 0, 1], 0.9993016719818115),
    ],
)
def test_numbers_of_the_official_code(ratio, kept, share):
    """``Mask.magnitudePruning`` and ``sparsity`` of ``prune/mask.py`` at f1490fc."""
    masks = magnitude_masks(random_weights(), ratio)
    assert [int(mask.sum()) for mask in masks] == kept
    assert sparsity(masks) == pytest.approx(share, abs=1e-6)


def test_oracle_rejects_wrong_variants():
    weights = random_weights()
    right = oracle(weights, 0.9)
    flat = torch.cat([w.flatten() for w in weights])
    wrong = [
        [oracle([w], 0.9)[0] for w in weights],  # a ranking within each layer
        [w >= flat.sort().values[1289] for w in weights],  # signed, not by magnitude
        [~mask for mask in right],  # the largest pruned
        oracle(weights, 0.1),  # the ratio taken for the share that is kept
    ]
    for variant in wrong:
        differ = sum(int((a != b).sum()) for a, b in zip(variant, right, strict=True))
        assert differ > 20


def test_pruning_more_keeps_a_subset():
    masks = [magnitude_masks(random_weights(), ratio) for ratio in (0.9, 0.5, 0.3, 0.0)]
    for fewer, more in itertools.pairwise(masks):
        assert all((~a | b).all() for a, b in zip(fewer, more, strict=True))
        assert sparsity(fewer) > sparsity(more)


def test_scale_and_sign_do_not_matter():
    weights = random_weights()
    masks = magnitude_masks(weights, 0.7)
    for other in ([-w for w in weights], [1e-4 * w for w in weights]):
        assert all(
            torch.equal(a, b) for a, b in zip(magnitude_masks(other, 0.7), masks, strict=True)
        )


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
def test_ties_are_kept(value):
    masks = magnitude_masks([torch.full((3, 4), value)], 0.9)
    assert masks[0].all()
    assert sparsity(masks) == 0


def test_one_weight():
    assert magnitude_masks([torch.tensor([0.0])], 0.9)[0].tolist() == [True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_no_gradient(dtype):
    weights = [w.requires_grad_() for w in random_weights(dtype=dtype)]
    masks = magnitude_masks(weights, 0.5)
    for mask, expected in zip(masks, oracle([w.detach() for w in weights], 0.5), strict=True):
        assert torch.equal(mask, expected)
    assert abs(sparsity(masks) - 0.5) < 0.01
    (weights[0] * masks[0]).sum().backward()
    assert torch.equal(weights[0].grad.bool(), masks[0])


@pytest.mark.parametrize("name", ["nt_xent", "negative_cosine"])
def test_two_passes_with_the_other_branch_detached_add_up_to_one(name):
    """What lets one backward pass stand for the official two: on shared weights, one masked."""
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 10, generator=g, dtype=torch.float64, requires_grad=True)
    mask = magnitude_masks([weight], 0.5)[0]
    x_1, x_2 = (torch.randn(8, 10, generator=g, dtype=torch.float64) for _ in range(2))
    ids = torch.arange(8).repeat(2)

    def loss(z_1, z_2):
        if name == "nt_xent":
            return nt_xent(torch.cat([z_1, z_2]), ids, 0.2)
        return negative_cosine(z_1, z_2) + negative_cosine(z_2, z_1)

    def branches():
        return (
            nn.functional.linear(x_1, weight).tanh(),
            nn.functional.linear(x_2, weight * mask).tanh(),
        )

    z_1, z_2 = branches()
    (once,) = torch.autograd.grad(loss(z_1, z_2), weight)
    parts = []
    for keep in (0, 1):
        z = list(branches())
        z[1 - keep] = z[1 - keep].detach()
        parts.append(torch.autograd.grad(loss(*z), weight)[0])
    torch.testing.assert_close(parts[0] + parts[1], once)
    # Neither part alone would do.
    assert min(part.abs().max() for part in parts) > 1e-3
