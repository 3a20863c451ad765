# SPDX-License-Identifier: MIT
"""Softmax and log-sum-exp over some of the candidates, finite for rows that have none.

The lowest finite value stands for -inf: its exponential is the same 0, and a row without any
candidate subtracts to a finite number and has a gradient of 0, where -inf would give NaN.

Legend: N anchors, M candidates.
"""

import torch
from torch import Tensor


def lowest(logits: Tensor) -> float:
    """The finite stand-in for -inf in the precision of ``logits``."""
    return torch.finfo(logits.dtype).min


def own_columns(logits: Tensor, offset: int = 0) -> Tensor:
    """Which candidates are the anchors themselves: Bool[N M], anchor i is candidate offset + i."""
    num_anchors, num_candidates = logits.shape
    candidates = torch.arange(num_candidates, device=logits.device)
    return torch.arange(num_anchors, device=logits.device)[:, None] + offset == candidates


def masked_log_sum_exp(logits: Tensor, out: Tensor) -> Tensor:
    """Log of each row's sum of exponentials over the candidates that are not ``out``.

    Args:
        logits: Float[N M].
        out: Bool[N M], candidates to leave out.

    Returns:
        Float[N]; about the lowest finite value for a row without candidates.
    """
    return logits.masked_fill(out, lowest(logits)).logsumexp(dim=1)


def masked_log_softmax(logits: Tensor, out: Tensor) -> Tensor:
    """Log share of each candidate among those that are not ``out``.

    Args:
        logits: Float[N M].
        out: Bool[N M] or Bool[M], candidates to leave out.

    Returns:
        Float[N M]; very low for those left out, and -log M all along a row without candidates.
    """
    return logits.masked_fill(out, lowest(logits)).log_softmax(dim=1)
