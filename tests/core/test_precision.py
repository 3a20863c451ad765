# SPDX-License-Identifier: MIT
"""Work in full precision under autocast, with half-precision tensors widened."""

import torch
from torch import Tensor

from ltplugins.core.precision import full_precision


@full_precision
def product(a: Tensor, b: Tensor, *, scale: float = 1.0) -> Tensor:
    """The product, and whether both arguments are one tensor."""
    return a @ b.T * scale if a is not b else a @ a.T * scale + 1000


def test_under_autocast_a_product_stays_float32() -> None:
    a, b = torch.randn(2, 3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ b.T).dtype == torch.bfloat16
        assert product(a=a, b=b, scale=2.0).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = product(a, b)
    assert torch.equal(inside, product(a, b))


def test_half_precision_is_widened_and_double_stays() -> None:
    a, b = torch.randn(2, 3, 5)
    for dtype in (torch.float16, torch.bfloat16):
        assert product(a.to(dtype), b.to(dtype)).dtype == torch.float32
    assert product(a.double(), b.double()).dtype == torch.float64


def test_one_tensor_given_twice_stays_one() -> None:
    half = torch.randn(3, 5).bfloat16()
    assert (product(half, half) > 500).all()
    assert (product(half, b=half) > 500).all()
    assert (product(half, half.clone()) < 500).all()


def test_the_gradient_reaches_the_half_precision_leaf() -> None:
    leaf = torch.randn(3, 5).bfloat16().requires_grad_()
    product(leaf, torch.ones(2, 5)).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == torch.bfloat16
    assert torch.equal(leaf.grad, torch.full_like(leaf, 2.0))
