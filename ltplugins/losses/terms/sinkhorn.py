# SPDX-License-Identifier: MIT
"""Sinkhorn's iteration for GH's surrogate labels: a soft assignment with given column totals.

Paper and official code: see ``gh.py``.
Log-domain stabilised (Schmitzer 2019, https://arxiv.org/abs/1610.06519): the dual potentials live
in log space; between two updates of them the scalings are plain matrix-vector products on a kernel
that has absorbed the potentials.

Legend: B global batch, K directions.
"""

import math

import torch
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.precision import full_precision

_LOOK_EVERY = 10  # pairs of scalings; a look costs about as much as one of them
_LARGEST_SCALING = 1e8  # beyond it the scalings return to log space; float32 ends at 1e38
_NEGLIGIBLE = 512  # of q, in units of the precision: 6e-5 in float32
_RELAXED_PAIRS = 40  # at most; then the problem converges too slowly to be worth it


@torch.no_grad()
@full_precision
def sinkhorn(
    logits: Tensor,
    prior: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    num_iters: int = 300,
    tolerance: float | None = None,
) -> Tensor:
    """Soft assignments whose rows sum to one and whose column means tend to the prior.

    The row scaling comes last, so the rows are exact and the columns are as close to the prior as
    the iterations have brought them. Iterations that could no longer change q are left out: see
    :func:`_step`.

    >>> t = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.9, 0.0], [0.8, 0.0]])
    >>> q = sinkhorn(t, torch.tensor([0.5, 0.5]))
    >>> [round(float(share), 3) for share in q.mean(dim=0)]
    [0.5, 0.5]

    Args:
        logits: Float[B K]; on the global batch, or the marginal changes its meaning.
        prior: Float[K], non-negative, rescaled to sum 1; zeros are allowed; uniform if ``None``.
        epsilon: entropy weight; logits are divided by it.
        num_iters: as many pairs of column and row scalings as q is to be that of.
        tolerance: stop already where the L1 error of the column means is below it (looked at every
            10 pairs; on a GPU each look waits for the device).

    Returns:
        q: Float[B K], at least float32, without gradient.

    Raises:
        UserError: a prior of the wrong shape, or (on CPU) negative or summing to zero.
    """
    scores = logits / epsilon
    log_prior = _log_prior(prior, scores.shape[1], scores)
    if num_iters < 1:
        return torch.softmax(scores + log_prior, dim=1)
    used = torch.nonzero(log_prior > -torch.inf).squeeze(1)  # prior 0 takes nothing
    scores = scores.index_select(1, used)
    log_cols = _column_potentials(scores, log_prior[used], num_iters=num_iters, tolerance=tolerance)
    q = torch.softmax(scores + log_cols, dim=1)
    return torch.zeros_like(logits).index_copy_(1, used, q)


def _column_potentials(
    scores: Tensor, log_prior: Tensor, *, num_iters: int, tolerance: float | None
) -> Tensor:
    """Sinkhorn's log column scalings Float[K], up to a constant, for a prior without zeros."""
    batch, target = len(scores), log_prior.exp() * len(scores)  # q's rows sum to 1, its columns so
    negligible = _NEGLIGIBLE * torch.finfo(scores.dtype).eps
    # The first pair in log space: the kernel's columns then hold the prior, its rows 1.
    log_cols = log_prior - torch.logsumexp(scores, dim=0)
    kernel = _kernel(scores, log_cols)
    cols, rows = torch.ones_like(log_cols), kernel.new_ones(batch)
    may_relax = True
    for start in range(1, num_iters, _LOOK_EVERY):
        pairs = min(_LOOK_EVERY, num_iters - start)
        for _ in range(pairs):
            cols = target / (kernel.T @ rows)
            rows = (kernel @ cols).reciprocal_()
        left = num_iters - start - pairs
        sums = cols * (kernel.T @ rows)
        step = _step(sums / target)
        if step * left / 4 < negligible:
            break
        if tolerance is not None and (sums - target).abs().sum() < tolerance * batch:
            break
        if may_relax and step < 0.5 and left > 4 * _RELAXED_PAIRS:
            may_relax = False
            relaxed = _over_relaxed(kernel, target, cols, rows, left, negligible)
            if relaxed is not None:
                return log_cols + relaxed.log()
        if cols.max() > _LARGEST_SCALING * cols.min():
            log_cols = log_cols + cols.log()
            kernel = _kernel(scores, log_cols)
            cols, rows = torch.ones_like(cols), torch.ones_like(rows)
    return log_cols + cols.log()


def _over_relaxed(
    kernel: Tensor, target: Tensor, cols: Tensor, rows: Tensor, left: int, negligible: float
) -> Tensor | None:
    """Where the ``left`` pairs would arrive, in fewer: Float[K]; ``None`` if they would not arrive.

    Each scaling is moved by omega times its step (Thibault et al. 2021,
    https://arxiv.org/abs/1711.01851). Omega is Young's optimum for the slowest problem that
    ``left`` plain pairs still solve, to 1e-5: those pairs contract an error by lambda each, these
    by omega - 1 (300 pairs: 0.96 and 0.67). A slower problem shows by not being solved here.
    """
    contraction = 1e-5 ** (1 / left)
    omega = 2 / (1 + math.sqrt(1 - contraction))
    for _ in range(0, _RELAXED_PAIRS, _LOOK_EVERY):
        for _ in range(_LOOK_EVERY):
            cols = cols * (target / (kernel.T @ rows)).div_(cols).pow_(omega)
            rows = rows / (kernel @ cols).mul_(rows).pow_(omega)
        rows = (kernel @ cols).reciprocal_()
        # The steps that plain pairs would add from here on: a geometric series.
        if _step(cols * (kernel.T @ rows) / target) / (1 - contraction) / 4 < negligible:
            return cols
    return None


def _kernel(scores: Tensor, log_cols: Tensor) -> Tensor:
    """Float[B K] that has absorbed the columns' potentials and the rows' scalings to sum 1.

    Where a whole column underflows, its scaling then takes a large finite step.
    """
    kernel = torch.softmax(scores + log_cols, dim=1)
    return kernel.clamp_min_(torch.finfo(kernel.dtype).tiny)


def _step(ratios: Tensor) -> Tensor:
    """How far a pair of scalings moves the columns', by the range of their logs.

    A pair divides each column's scaling by its ratio, column mean / prior. No later pair moves the
    scalings further, in this measure (Hilbert's projective metric, in which Sinkhorn never
    expands); and moving a softmax's logits by a range of r moves no share by more than r / 4.
    """
    smallest, largest = torch.aminmax(ratios)
    return (largest / smallest).log()


def _log_prior(prior: Tensor | None, num_directions: int, like: Tensor) -> Tensor:
    if prior is None:
        return like.new_full((num_directions,), -math.log(num_directions))
    if prior.shape != (num_directions,):
        raise UserError(
            f"sinkhorn: expected a prior of shape ({num_directions},), got {tuple(prior.shape)}."
        )
    if prior.device.type == "cpu" and (bool((prior < 0).any()) or not float(prior.sum()) > 0):
        raise UserError("sinkhorn: the prior must be non-negative and must not sum to zero.")
    prior = prior.to(like)
    return (prior / prior.sum()).log()
