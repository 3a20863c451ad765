# SPDX-License-Identifier: MIT
"""GML's key projector over the filled slots alone, with all of them in the batch."""

import copy

import torch

from ltplugins.methods.parts.cosine_head import project_rows, projector


def projected(head, feats, rows, subset):
    """What comes out of the rows that count, the head's gradients and its state after it."""
    out = head(feats[rows]) if subset else project_rows(head, feats, rows)[rows]
    (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    return [out, *(p.grad for p in head.parameters()), *head.state_dict().values()]


def test_a_mask_of_rows_is_those_rows_alone():
    torch.manual_seed(0)
    rows = torch.tensor([True, False, True, True, False, True])
    feats = torch.randn(6, 5, dtype=torch.float64)
    feats[~rows] = 1e3
    head = projector(5, 4, 3).double()
    for _ in range(2):
        expected = projected(copy.deepcopy(head), feats, rows, subset=True)
        found = projected(head, feats, rows, subset=False)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        head.zero_grad()
    head.eval()
    torch.testing.assert_close(project_rows(head, feats, rows), head(feats))
