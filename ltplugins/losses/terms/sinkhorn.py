# SPDX-License-Identifier: MIT
"""Sinkhorn's iteration for GH's surrogate labels: a soft assignment with given column totals.

Paper and official code: see ``gh.py``.
Log-domain stabilised (Schmitzer 2019, https://arxiv.org/abs/1610.06519): the dual potentials live
in log space; between two updates of them the scalings are plain matrix-vector products on a kernel
that has absorbed the potentials. Only so many of these are taken that no entry which has
underflowed in the kernel could come back to weight; where that is not even one, the pair is worked
in log space. On a CUDA device every look would be waited for, and the whole is one launch there:
the same plan (``sinkhorn_fused.py``), or for large problems log space throughout
(``sinkhorn_kernel.py``).

Legend: B global batch, K directions.
"""

import math

import torch
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.kernels import NoKernel, give_up
from ltplugins.core.precision import full_precision
from ltplugins.losses.terms.sinkhorn_device import KERNEL, assignments, works_on_device

_LOOK_EVERY = 10  # pairs of scalings; a look costs about as much as one of them
_NEGLIGIBLE = 340  # of q, in units of the logits' precision: 4e-5 in float32
_RELAXED_PAIRS = 40  # at most; then the problem converges too slowly to be worth it
_FLOAT32_PAIRS = 500  # whose rounding errors, added up, stay below what is negligible


@torch.no_grad()
@full_precision
def sinkhorn(
    logits: Tensor,
    prior: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    num_iters: int = 300,
    tolerance: float | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """Soft assignments whose rows sum to one and whose column means tend to the prior.

    The row scaling comes last, so the rows are exact and the columns are as close to the prior as
    the iterations have brought them. Pairs that could no longer change q are left out (see
    :func:`_step`), and where the pairs converge fewer, longer ones are taken to the same end
    (:func:`_over_relaxed`). No share differs from that of ``num_iters`` pairs in float64 by more
    than 6e-5, for float32 logits in [-1, 1], epsilon from 0.01 on, any prior (entries of 1e-7 and
    0 included) and any number of pairs. Bounds hold for the pairs that are left out; for the longer
    ones it is what a search over ten thousand problems made to break it has found. With larger
    logits or a smaller epsilon the rounding of logits / epsilon adds to it.

    >>> t = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.9, 0.0], [0.8, 0.0]])
    >>> q = sinkhorn(t, torch.tensor([0.5, 0.5]))
    >>> [round(float(share), 3) for share in q.mean(dim=0)]
    [0.5, 0.5]

    Args:
        logits: Float[B K]; on the global batch, or the marginal changes its meaning. Several
            problems of one prior are Float[P B K].
        prior: Float[K], non-negative, rescaled to sum 1; zeros are allowed; uniform if ``None``.
        epsilon: entropy weight; logits are divided by it.
        num_iters: as many pairs of column and row scalings as q is to be that of.
        tolerance: stop already where the L1 error of the column means is below it (looked at every
            10 pairs, on a GPU every pair). Then q is of fewer pairs.
        counted: Bool[B], the rows that take part; None for all. What comes out of the others means
            nothing.

    Returns:
        q: as the logits, at least float32, without gradient.

    Raises:
        UserError: a prior of the wrong shape, or (on CPU) negative or summing to zero.
    """
    if num_iters > 0 and works_on_device(logits):
        try:
            return _unwatched(logits, prior, epsilon, num_iters, tolerance, counted)
        except NoKernel as error:
            give_up(KERNEL, error)
    if logits.ndim == 3:
        return torch.stack(
            [
                sinkhorn(
                    problem,
                    prior,
                    epsilon=epsilon,
                    num_iters=num_iters,
                    tolerance=tolerance,
                    counted=counted,
                )
                for problem in logits
            ]
        )
    if counted is None:
        return _watched(logits, prior, epsilon, num_iters, tolerance)
    q = _watched(logits[counted], prior, epsilon, num_iters, tolerance)
    return torch.zeros_like(logits).index_put_((counted,), q)


def _unwatched(
    logits: Tensor,
    prior: Tensor | None,
    epsilon: float,
    num_iters: int,
    tolerance: float | None,
    counted: Tensor | None,
) -> Tensor:
    """The device decides."""
    scores = logits.to(_work_dtype(logits, num_iters)) / epsilon
    q = assignments(
        scores.view(-1, *scores.shape[-2:]),
        _log_prior(prior, scores.shape[-1], scores),
        counted,
        num_iters=num_iters,
        negligible=_NEGLIGIBLE * torch.finfo(logits.dtype).eps,
        tolerance=tolerance,
        relaxed_pairs=_RELAXED_PAIRS,
    )
    return q.view_as(logits).to(logits.dtype)


def _watched(
    logits: Tensor, prior: Tensor | None, epsilon: float, num_iters: int, tolerance: float | None
) -> Tensor:
    """The host looks every ten pairs at what the columns do."""
    scores = logits.to(_work_dtype(logits, num_iters)) / epsilon
    log_prior = _log_prior(prior, scores.shape[1], scores)
    if num_iters < 1:
        return torch.softmax(scores + log_prior, dim=1).to(logits.dtype)
    used = torch.nonzero(log_prior > -torch.inf).squeeze(1)  # prior 0 takes nothing
    scores = scores.index_select(1, used)
    negligible = _NEGLIGIBLE * torch.finfo(logits.dtype).eps
    log_cols = _column_potentials(scores, log_prior[used], num_iters, negligible, tolerance)
    q = torch.softmax(scores + log_cols, dim=1).to(logits.dtype)
    return torch.zeros_like(logits).index_copy_(1, used, q)


def _column_potentials(
    scores: Tensor, log_prior: Tensor, num_iters: int, negligible: float, tolerance: float | None
) -> Tensor:
    """Sinkhorn's log column scalings Float[K], up to a constant, for a prior without zeros."""
    batch = len(scores)
    log_target = log_prior + math.log(batch)  # q's rows sum to 1, its columns to this
    target, reach = log_target.exp(), -math.log(torch.finfo(scores.dtype).tiny)
    log_cols = log_target - torch.logsumexp(scores, dim=0)  # the first pair's
    kernel = torch.softmax(scores + log_cols, dim=1)
    cols, rows, sums = torch.ones_like(log_cols), kernel.new_ones(batch), kernel.sum(dim=0)
    done, may_relax = 1, True
    while (left := num_iters - done) > 0:
        step = float(_step(cols * sums / target))
        if not step * left / 4 >= negligible:  # nor where logits are NaN, and q is
            break
        if tolerance is not None and (cols * sums - target).abs().sum() < tolerance * batch:
            break
        if may_relax and step < 0.5 and left > 4 * _RELAXED_PAIRS:
            may_relax = False
            relaxed = _over_relaxed(kernel, target, cols, rows, left, step, negligible)
            if relaxed is not None:
                return log_cols + relaxed.log()
        # A third of the reach for these pairs and an eighth for those before them: an entry below
        # the reach is below half of it, in logs, after them. A column all below it has step inf.
        pairs = min(_LOOK_EVERY, left, int(reach / 3 / step))
        for _ in range(pairs):
            cols = target / sums
            rows = (kernel @ cols).reciprocal_()
            sums = kernel.T @ rows
        done += max(pairs, 1)
        if pairs and cols.max() < math.exp(reach / 8) * cols.min():
            continue
        log_cols = log_cols + cols.log()
        if not pairs:
            log_q = torch.log_softmax(scores + log_cols, dim=1)
            log_cols = log_cols + log_target - torch.logsumexp(log_q, dim=0)
        kernel = torch.softmax(scores + log_cols, dim=1)
        cols, rows, sums = torch.ones_like(cols), torch.ones_like(rows), kernel.sum(dim=0)
    return log_cols + cols.log()


def _over_relaxed(
    kernel: Tensor,
    target: Tensor,
    cols: Tensor,
    rows: Tensor,
    left: int,
    step: float,
    negligible: float,
) -> Tensor | None:
    """Where the ``left`` pairs would arrive, in fewer: Float[K]; ``None`` if they would not arrive.

    Each scaling is moved by omega times its step (Thibault et al. 2021,
    https://arxiv.org/abs/1711.01851). Omega is Young's optimum for the slowest problem that
    ``left`` plain pairs still solve, to 1e-5: those pairs contract an error by lambda each, these
    by omega - 1 (300 pairs: 0.96 and 0.67). A slower problem, or one that first drifts at a steady
    pace, which longer pairs would cover before the plain ones do, shows in ``step``, the first of
    which is of before: it falls by less than ten times from one look to the next.
    """
    contraction = 1e-5 ** (1 / left)
    omega = 2 / (1 + math.sqrt(1 - contraction))
    for _ in range(0, _RELAXED_PAIRS, _LOOK_EVERY):
        for _ in range(_LOOK_EVERY):
            cols = cols * (target / (kernel.T @ rows)).div_(cols).pow_(omega)
            rows = rows / (kernel @ cols).mul_(rows).pow_(omega)
        rows = (kernel @ cols).reciprocal_()
        before, step = step, float(_step(cols * (kernel.T @ rows) / target))
        # The steps that plain pairs would add from here on: a geometric series.
        if step / (1 - contraction) / 4 < negligible:
            return cols
        if not step < before / 10:
            break
    return None


def _step(ratios: Tensor) -> Tensor:
    """How far a pair of scalings moves the columns', by the range of their logs.

    A pair divides each column's scaling by its ratio, column mean / prior. No later pair moves the
    scalings further, in this measure (Hilbert's projective metric, in which Sinkhorn never
    expands); and moving a softmax's logits by a range of r moves no share by more than r / 4.
    """
    smallest, largest = torch.aminmax(ratios)
    return (largest / smallest).log()


def _work_dtype(logits: Tensor, num_iters: int) -> torch.dtype:
    """The logits' precision, or float64 where that many pairs would lose too much of it."""
    is_enough = num_iters <= _FLOAT32_PAIRS or logits.device.type == "mps"  # it has no float64
    return logits.dtype if is_enough else torch.float64


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
