# SPDX-License-Identifier: MIT
"""Sinkhorn's pairs of scalings in one launch: what is decided on the way is decided on the device.

The plan of ``sinkhorn.py``, in log space: the column potentials stay in registers, a pair is one
sweep over the logits. A column that was just scaled to its target has, after the rows are scaled,
at least a share 1 / B of it, so that no sum of a column underflows. Needs Triton.

Legend: P problems (a program each), B batch, K directions.
"""

# What a kernel is given are Triton's pointers and blocks, which its language has no types for.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 8192  # logits that a program holds at a time


def column_potentials(
    scores: Tensor,
    target: Tensor,
    weights: Tensor,
    num_iters: int,
    negligible: float,
    tolerance: float,
    relaxed_pairs: int,
) -> Tensor:
    """How far ``num_iters - 1`` pairs move the columns' potentials from 0: Float[P K].

    Args:
        scores: Float[P B K], contiguous; columns scaled to their targets.
        target: Float[K], what the columns are to sum to; 0 for those that take no part.
        weights: Float[B], 1 or 0: rows that count.
        num_iters, negligible, relaxed_pairs: as in ``sinkhorn.py``.
        tolerance: stop where the columns' error is below this share of their sum; 0 for never.
    """
    problems, batch, directions = scores.shape
    width = triton.next_power_of_2(directions)
    contraction = 1e-5 ** (1 / max(num_iters - 1, 1))
    moved = torch.empty(problems, directions, dtype=scores.dtype, device=scores.device)
    rows = torch.zeros(problems, batch, dtype=scores.dtype, device=scores.device)
    with torch.cuda.device_of(scores):
        _solve[(problems,)](
            *(scores, target, weights, rows, moved),
            *(batch, directions, num_iters - 1),
            *(negligible, tolerance, 2 / (1 + (1 - contraction) ** 0.5), 1 / (1 - contraction)),
            RELAXED=relaxed_pairs,
            HEIGHT=max(1, TILE // width),
            WIDTH=width,
            num_warps=8,
        )
    return moved


@triton.jit(do_not_specialize=["left"])
def _solve(
    scores,
    target_of,
    weights,
    rows,
    moved,
    batch,
    directions,
    left,
    negligible,
    tolerance,
    omega,
    series,
    RELAXED: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    problem = tl.program_id(0)
    scores += problem * batch * directions
    rows += problem * batch
    column = tl.arange(0, WIDTH)
    target = tl.load(target_of + column, mask=column < directions, other=0.0)
    used = target > 0
    total = tl.sum(target, axis=0)
    d = tl.zeros_like(target)
    sums = _sweep(scores, weights, rows, d, 1.0, batch, directions, HEIGHT, WIDTH)
    step = _range_of_logs(sums, target, used)
    error = tl.sum(tl.abs(sums - target), axis=0)

    # Plain pairs, until longer ones may be tried.
    may_relax = (step < 0.5) & (left > 4 * RELAXED)
    go = (left > 0) & (step * left * 0.25 >= negligible) & (error >= tolerance * total)
    while go & (may_relax == 0):
        d += _logs(sums, target, used)
        sums = _sweep(scores, weights, rows, d, 1.0, batch, directions, HEIGHT, WIDTH)
        step = _range_of_logs(sums, target, used)
        error = tl.sum(tl.abs(sums - target), axis=0)
        left -= 1
        may_relax = (step < 0.5) & (left > 4 * RELAXED)
        go = (left > 0) & (step * left * 0.25 >= negligible) & (error >= tolerance * total)

    # Longer pairs; what they find is taken if they arrive.
    relaxed, relaxed_sums, before = d, sums, step
    pair = 0
    arrived = go & (left < 0)  # False
    trying = go & may_relax
    while trying:
        relaxed += omega * _logs(relaxed_sums, target, used)
        pair += 1
        look = pair % 10 == 0
        pace = tl.where(look, 1.0, omega)
        relaxed_sums = _sweep(
            scores, weights, rows, relaxed, pace, batch, directions, HEIGHT, WIDTH
        )
        now = _range_of_logs(relaxed_sums, target, used)
        arrived = look & (now * series * 0.25 < negligible)
        falls = (look == 0) | (now < before * 0.1)
        trying = (arrived == 0) & falls & (pair < RELAXED)
        before = tl.where(look, now, before)

    # Or the plain ones to their end.
    go = go & (arrived == 0)
    while go:
        d += _logs(sums, target, used)
        sums = _sweep(scores, weights, rows, d, 1.0, batch, directions, HEIGHT, WIDTH)
        step = _range_of_logs(sums, target, used)
        error = tl.sum(tl.abs(sums - target), axis=0)
        left -= 1
        go = (left > 0) & (step * left * 0.25 >= negligible) & (error >= tolerance * total)
    found = tl.where(arrived, relaxed, d)
    tl.store(moved + problem * directions + column, found, mask=column < directions)


@triton.jit
def _sweep(
    scores, weights, rows, d, pace, batch, directions, HEIGHT: tl.constexpr, WIDTH: tl.constexpr
):
    """Move the rows' potentials ``pace`` of the way to sums of 1; the columns' sums after it."""
    column = tl.arange(0, WIDTH)
    sums = tl.zeros_like(d)
    for start in range(0, batch, HEIGHT):
        row = start + tl.arange(0, HEIGHT)
        inside = row < batch
        both = inside[:, None] & (column < directions)[None, :]
        places = row[:, None] * directions + column[None, :]
        logits = tl.load(scores + places, mask=both, other=-float("inf")) + d[None, :]
        peak = tl.where(inside, tl.max(logits, axis=1), 0.0)
        share = tl.exp(logits - peak[:, None])
        mass = tl.where(inside, tl.sum(share, axis=1), 1.0)
        old = tl.load(rows + row, mask=inside, other=0.0)
        new = old * (1.0 - pace) - pace * (peak + tl.log(mass))
        tl.store(rows + row, new, mask=inside)
        weight = tl.load(weights + row, mask=inside, other=0.0)
        factor = tl.where(inside, tl.exp(peak + new), 0.0) * weight
        sums += tl.sum(share * factor[:, None], axis=0)
    tl.debug_barrier()  # the next sweep's threads read what others have stored
    return sums


@triton.jit
def _logs(sums, target, used):
    """By how much a scaling moves the columns' potentials."""
    return tl.where(used, tl.log(tl.where(used, target, 1.0) / tl.where(used, sums, 1.0)), 0.0)


@triton.jit
def _range_of_logs(sums, target, used):
    """The same as one number: the range of these logs."""
    logs = _logs(sums, target, used)
    highest = tl.max(tl.where(used, logs, -float("inf")), axis=0)
    return highest - tl.min(tl.where(used, logs, float("inf")), axis=0)
