# SPDX-License-Identifier: MIT
"""The filter of ``mv_<base>``: which images pass, and what happens to those that do not."""

import math

import pytest
import torch
import torch.nn.functional as F

from ltplugins.losses.mv import detach_rows, positive_in_band


def at_degrees(*angles):
    radians = torch.tensor(angles, dtype=torch.float64) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def test_band_by_hand():
    # Cosines 1, .996, .5, 0, -.5, -.996: the size counts, not the sign.
    z_1, z_2 = at_degrees(*[0] * 6), 7 * at_degrees(0, 5, 60, 90, 120, 175)
    keep = positive_in_band(z_1, z_2, lower=0.1, upper=0.9)
    assert keep.tolist() == [False, False, True, False, True, False]
    assert positive_in_band(z_1, z_2, lower=0.0, upper=1.0).all()


def test_oracle_rejects_wrong_variants():
    g = torch.Generator().manual_seed(0)
    z_1, z_2 = (torch.randn(200, 3, generator=g) for _ in range(2))

    def oracle(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return 0.1 <= abs(dot / math.hypot(*a) / math.hypot(*b)) <= 0.9

    expected = [oracle(a, b) for a, b in zip(z_1.tolist(), z_2.tolist(), strict=True)]
    assert positive_in_band(z_1, z_2, lower=0.1, upper=0.9).tolist() == expected
    cos = F.cosine_similarity(z_1, z_2)
    product = (z_1 * z_2).sum(1).abs()
    signed = (cos >= 0.1) & (cos <= 0.9)
    unnormalised = (product >= 0.1) & (product <= 0.9)
    only_upper = cos.abs() <= 0.9
    for wrong in (signed, unnormalised, only_upper):
        assert wrong.tolist() != expected


@pytest.mark.parametrize("shape", [(4, 3), (4,), (2, 4, 3), (4, 5, 2)])
def test_values_stay_and_gradients_go(shape):
    keep = torch.tensor([True, False, True, False])
    x = torch.randn(shape, requires_grad=True)
    out = detach_rows(x, keep)
    assert torch.equal(out, x)
    out.sum().backward()
    axis = shape.index(4)
    by_row = x.grad.movedim(axis, 0).reshape(4, -1)
    assert by_row[[0, 2]].eq(1).all()
    assert by_row[[1, 3]].eq(0).all()


def test_what_has_no_row_per_image_is_left_alone():
    keep = torch.tensor([True, False])
    scalar, other = torch.tensor(1.0, requires_grad=True), torch.ones(5, 3, requires_grad=True)
    assert detach_rows(scalar, keep) is scalar
    assert detach_rows(other, keep) is other
    assert detach_rows("text", keep) == "text"
    rows = [torch.ones(2, 3, requires_grad=True), other]
    listed = detach_rows(rows, keep)
    listed[0].sum().backward()
    assert rows[0].grad.sum() == 3
    assert listed[1] is other


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_zero_vectors(dtype):
    z = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=dtype)
    assert positive_in_band(z, z, lower=0.1, upper=1.0).tolist() == [True, False]
