# SPDX-License-Identifier: MIT
"""Masked softmax and log-sum-exp: equal to leaving columns out, and finite where all are."""

import math

import pytest
import torch

from ltplugins.losses.terms.masked import masked_log_softmax, masked_log_sum_exp, own_columns

LOGITS = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 4.0]], dtype=torch.float64)
OUT = torch.tensor([[False, True, False], [True, False, False]])


def test_by_hand() -> None:
    total = masked_log_sum_exp(LOGITS, OUT)
    expected = [math.log(math.e + math.e**3), math.log(1 / math.e + math.e**4)]
    assert total.tolist() == pytest.approx(expected)
    assert abs(total[0] - LOGITS[0].logsumexp(0)) > 0.1  # without the mask


def test_equals_leaving_the_columns_out() -> None:
    out = torch.tensor([False, True, False])
    share = masked_log_softmax(LOGITS, out)
    torch.testing.assert_close(share[:, [0, 2]], LOGITS[:, [0, 2]].log_softmax(dim=1))
    assert torch.equal(share.exp()[:, 1], torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_without_candidates_is_finite_and_has_no_gradient(dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype).requires_grad_()
    out = torch.tensor([[True] * 3, [False] * 3])
    total, share = masked_log_sum_exp(logits, out), masked_log_softmax(logits, out)
    assert torch.isfinite(total).all()
    assert share[0].tolist() == pytest.approx([-math.log(3)] * 3)
    (total[0] + share[0].sum()).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_own_columns_begin_at_the_offset() -> None:
    assert own_columns(torch.zeros(2, 4), 1).int().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert own_columns(torch.zeros(2, 2)).int().tolist() == [[1, 0], [0, 1]]
