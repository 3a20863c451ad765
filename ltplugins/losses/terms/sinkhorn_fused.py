# SPDX-License-Identifier: MIT
"""Sinkhorn's pairs of scalings in one launch, one streaming multiprocessor to a problem.

The plan of ``sinkhorn.py``; what is looked at on the way is decided on the device. The absorbed
kernel lies transposed in memory, 200 KB at 512 x 100, and mostly stays in the processor's L1 cache.
A pair is one sweep over it: a chunk of directions is summed over the batch, its scalings follow at
once, and the chunk, so scaled, is added to the rows' sums. In a chunk a warp has one direction and
a lane the same images of each, so that only a direction's sum crosses lanes, and the rows' sums
cross warps once a sweep. Where the kernel would underflow, a pair is worked on the logits.

Needs Triton. Legend: P problems (a program each), B batch, K directions.
"""

# What a kernel is given are Triton's pointers and blocks, which its language has no types for.
# mypy: disable-error-code="no-untyped-def"

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 16  # with 128 registers a thread at most
_LOOK_EVERY = 10  # pairs of scalings, as in sinkhorn.py


def column_potentials(
    scores: Tensor,
    target: Tensor,
    weights: Tensor,
    num_iters: int,
    negligible: float,
    tolerance: float,
    relaxed_pairs: int,
) -> Tensor:
    """How far ``num_iters - 1`` pairs move the columns' log scalings from 0: Float[P K].

    Args:
        scores: Float[P B K], logits / epsilon that the first pair has scaled to the columns'
            targets.
        target: Float[K], what the columns are to sum to; 0 for those that take no part.
        weights: Float[B], 1 or 0: rows that count.
        num_iters: 1 or more.
        negligible: range of a change of the log scalings that no share shows.
        tolerance: stop where the columns' error is below this share of their sum; 0 for never.
        relaxed_pairs: over-relaxed pairs, at most.
    """
    problems, batch, directions = scores.shape
    lanes = min(128, triton.next_power_of_2(batch))
    blocks = triton.next_power_of_2(triton.cdiv(batch, lanes))
    warps = WARPS if blocks <= 4 else WARPS // 2  # a thread holds 4 images of each block
    contraction = 1e-5 ** (1 / max(num_iters - 1, 1))
    moved = scores.new_empty(problems, directions)
    _solve[(problems,)](
        scores.mT.contiguous(),
        target,
        weights,
        scores.new_empty(problems, directions, blocks * lanes),
        scores.new_empty(problems, 3, directions),
        moved,
        batch,
        directions,
        num_iters - 1,
        negligible,
        tolerance,
        -math.log(torch.finfo(scores.dtype).tiny),
        2 / (1 + (1 - contraction) ** 0.5),
        1 / (1 - contraction),
        RELAXED=relaxed_pairs,
        LOOK=_LOOK_EVERY,
        BLOCKS=blocks,
        LANES=lanes,
        CHUNK=max(warps, 64 // blocks),
        WIDTH=triton.next_power_of_2(directions),
        num_warps=warps,
    )
    return moved


@triton.jit(do_not_specialize=["left"])
def _solve(
    scores,
    target,
    weights,
    kernel,
    state,
    moved,
    batch,
    directions,
    left,
    negligible,
    tolerance,
    reach,
    omega,
    series,
    RELAXED: tl.constexpr,
    LOOK: tl.constexpr,
    BLOCKS: tl.constexpr,
    LANES: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One problem. In ``state``: log scalings absorbed, scalings since, and room for their next."""
    problem = tl.program_id(0)
    scores += problem * batch * directions
    kernel += problem * directions * (BLOCKS * LANES)
    state += problem * 3 * directions
    image = tl.arange(0, BLOCKS)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    weight = tl.load(weights + image, mask=image < batch, other=0.0)
    column = tl.arange(0, WIDTH)
    goal = tl.load(target + column, mask=column < directions, other=0.0)
    enough = tolerance * tl.sum(goal, axis=0)
    tl.store(state + column, goal * 0.0, mask=column < directions)
    tl.debug_barrier()

    # A leg is some pairs and a look at the last, which is plain; the first legs are one pair, until
    # the kernel is seen to carry it (no later pair moves further), with one on the logits if not.
    rows, norm = weight, weight
    turn, spare, step, spread = left * 0, left * 0 + RELAXED, enough + float("inf"), enough * 0
    go, probing, tried = turn == 0, turn == 0, left <= 4 * RELAXED
    unsafe, taken, relaxing, in_vain = turn > 0, turn > 0, turn > 0, turn > 0
    first_step = step
    while go:
        starts = (tried == 0) & (step < 0.5) & (left > 4 * RELAXED)
        tried, relaxing = tried | starts, relaxing | starts
        first_step = tl.where(starts, step, first_step)
        if unsafe:
            _pair_of_logits(scores, state, target, weight, norm, batch, directions, CHUNK)
        if probing | starts | in_vain | ((relaxing == 0) & (spread > reach / 8)):
            keep = tl.where(probing | in_vain, 0, 1)
            rows, norm = _absorb(
                scores, kernel, state, weight, keep, turn, batch, directions, CHUNK, WIDTH
            )
        safe = (reach / 3 / tl.maximum(step, 1.0)).to(tl.int32)
        plain = tl.maximum(tl.minimum(tl.minimum(safe, LOOK), left), 1)
        pairs = tl.where(relaxing, LOOK + 1, plain)
        pace = tl.where(relaxing, omega, 1.0)
        low, high = tl.zeros([CHUNK], weight.dtype), tl.zeros([CHUNK], weight.dtype)
        least, most = tl.zeros([CHUNK], weight.dtype), tl.zeros([CHUNK], weight.dtype)
        off = tl.zeros([CHUNK], weight.dtype)
        for pair in range(pairs):
            # The rows are exact before the last pair, so that it shows how far there is to go.
            of_cols = tl.where(pair + 1 < pairs, pace, 1.0)
            of_rows = tl.where(pair + 2 < pairs, pace, 1.0)
            rows, turn, low, high, least, most, off = _pair(
                kernel, state, target, weight, rows, turn, of_cols, of_rows, directions, CHUNK
            )
        before = step
        step = _range(tl.min(low, axis=0), tl.max(high, axis=0))
        spread = _range(tl.min(least, axis=0), tl.max(most, axis=0))
        error = tl.sum(off, axis=0)

        unsafe = probing & (step > reach / 3) & (left > 0)
        taken = taken | (probing & (unsafe == 0) & (left > 0))
        probing = unsafe
        left = tl.maximum(left - tl.where(relaxing, 0, pairs), 0)
        spare -= tl.where(relaxing, LOOK, 0)
        arrived = relaxing & (step * series * 0.25 < negligible)
        falls = (step < before * 0.1) & (spare > 0)
        in_vain = relaxing & (arrived == 0) & (falls == 0)
        relaxing = relaxing & (in_vain == 0)
        step = tl.where(in_vain, first_step, step)
        goes_on = (left > 0) & (step * left * 0.25 >= negligible) & (error >= enough)
        go = unsafe | in_vain | tl.where(relaxing, arrived == 0, goes_on)
    place = column < directions
    found = tl.load(state + column, mask=place, other=0.0)
    since = tl.load(state + (1 + turn) * directions + column, mask=place, other=1.0)
    found += tl.where(taken, tl.log(since), 0.0)
    tl.store(moved + problem * directions + column, found, mask=place)


@triton.jit
def _absorb(
    scores,
    kernel,
    state,
    weight,
    keep,
    turn,
    batch,
    directions,
    CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Take the scalings into the kernel, or forget them (``keep`` 0); they are 1 after it.

    The kernel's largest entry of a row is 1. Returns the rows' scalings, and their norms' logs.
    """
    BLOCKS: tl.constexpr = weight.shape[0]
    LANES: tl.constexpr = weight.shape[1]
    column = tl.arange(0, WIDTH)
    place = column < directions
    absorbed = tl.load(state + column, mask=place, other=0.0)
    since = tl.load(state + (1 + turn) * directions + column, mask=place, other=1.0)
    tl.debug_barrier()
    tl.store(state + column, tl.where(keep > 0, absorbed + tl.log(since), absorbed), mask=place)
    one = tl.full([WIDTH], 1.0, weight.dtype)
    tl.store(state + directions + column, one, mask=place)
    tl.store(state + 2 * directions + column, one, mask=place)
    tl.debug_barrier()

    image = tl.arange(0, BLOCKS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]
    highest = tl.full([BLOCKS, CHUNK, LANES], -float("inf"), weight.dtype)
    for first in range(0, directions, CHUNK):
        k = first + tl.arange(0, CHUNK)
        highest = tl.maximum(highest, _logits(scores, state, weight, image, k, batch, directions))
    peak = tl.max(highest, axis=1)
    sums = tl.zeros([BLOCKS, CHUNK, LANES], weight.dtype)
    for first in range(0, directions, CHUNK):
        k = first + tl.arange(0, CHUNK)
        shares = tl.exp(
            _logits(scores, state, weight, image, k, batch, directions) - peak[:, None, :]
        )
        inside = (k < directions)[None, :, None] & (image >= 0)
        tl.store(kernel + k[None, :, None] * (BLOCKS * LANES) + image, shares, mask=inside)
        sums += shares
    mass = tl.sum(sums, axis=1)
    tl.debug_barrier()
    return tl.where(weight > 0, 1.0 / mass, 0.0), peak + tl.log(mass)


@triton.jit
def _logits(scores, state, weight, image, k, batch, directions):
    """A chunk's scores and potentials; 0 for rows that do not count, -inf beyond the columns."""
    inside = k < directions
    potential = tl.load(state + k, mask=inside, other=0.0)
    counts = inside[None, :, None] & (weight > 0)[:, None, :]
    logits = tl.load(scores + k[None, :, None] * batch + image, mask=counts, other=0.0)
    return tl.where(inside[None, :, None], logits + potential[None, :, None], -float("inf"))


@triton.jit
def _pair_of_logits(scores, state, target, weight, norm, batch, directions, CHUNK: tl.constexpr):
    """Scale the columns to their targets by log-sum-exp; the rows' scalings are -``norm``."""
    BLOCKS: tl.constexpr = weight.shape[0]
    LANES: tl.constexpr = weight.shape[1]
    image = tl.arange(0, BLOCKS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]
    for first in range(0, directions, CHUNK):
        k = first + tl.arange(0, CHUNK)
        goal = tl.load(target + k, mask=k < directions, other=0.0)
        absorbed = tl.load(state + k, mask=k < directions, other=0.0)
        logits = _logits(scores, state, weight, image, k, batch, directions) - norm[:, None, :]
        logits = tl.where((weight > 0)[:, None, :], logits, -float("inf"))
        peak = tl.max(tl.max(logits, axis=0), axis=1)
        shares = tl.exp(logits - peak[None, :, None])
        mass = peak + tl.log(tl.sum(tl.sum(shares, axis=0), axis=1))
        tl.debug_barrier()
        potential = tl.where(goal > 0, absorbed + tl.log(goal) - mass, absorbed)
        tl.store(state + k, potential, mask=k < directions)
    tl.debug_barrier()


@triton.jit
def _pair(kernel, state, target, weight, rows, turn, omega, pace, directions, CHUNK: tl.constexpr):
    """Move the columns' scalings ``omega`` of the way, in logs, and the rows' ``pace`` of it.

    Returns the rows' scalings, where the columns' are, and, of a chunk's directions each: lowest
    and highest ratio by which a plain scaling would divide them, lowest and highest of them, and
    their error before it.
    """
    BLOCKS: tl.constexpr = weight.shape[0]
    LANES: tl.constexpr = weight.shape[1]
    old = state + (1 + turn) * directions
    new = state + (2 - turn) * directions
    image = tl.arange(0, BLOCKS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]
    entry = kernel + tl.arange(0, CHUNK)[None, :, None] * (BLOCKS * LANES) + image
    inside = (tl.arange(0, CHUNK) < directions)[None, :, None] & (image >= 0)
    ahead = tl.load(entry, mask=inside, other=0.0)
    sums = tl.zeros([BLOCKS, CHUNK, LANES], weight.dtype)
    off = tl.zeros([CHUNK], weight.dtype)
    low, high = tl.full([CHUNK], float("inf"), weight.dtype), tl.zeros([CHUNK], weight.dtype)
    least, most = tl.full([CHUNK], float("inf"), weight.dtype), tl.zeros([CHUNK], weight.dtype)
    for first in range(0, directions, CHUNK):
        k = first + tl.arange(0, CHUNK)
        shares = ahead
        entry += CHUNK * BLOCKS * LANES
        inside = (k + CHUNK < directions)[None, :, None] & (image >= 0)
        ahead = tl.load(entry, mask=inside, other=0.0)
        col = tl.load(old + k, mask=k < directions, other=1.0)
        goal = tl.load(target + k, mask=k < directions, other=0.0)
        used = goal > 0
        mass = tl.sum(tl.sum(shares * rows[:, None, :], axis=0), axis=1)
        ratio = col * mass / tl.where(used, goal, 1.0)
        far = col * tl.exp(-omega * tl.log(ratio))
        next_col = tl.where(used, tl.where(omega == 1.0, goal / mass, far), 1.0)
        tl.store(new + k, next_col, mask=k < directions)
        sums += shares * next_col[None, :, None]
        off += tl.where(used, tl.abs(col * mass - goal), 0.0)
        low = tl.minimum(low, tl.where(used, ratio, float("inf")))
        high = tl.maximum(high, tl.where(used, ratio, 0.0))
        least = tl.minimum(least, tl.where(used, next_col, float("inf")))
        most = tl.maximum(most, tl.where(used, next_col, 0.0))
    mass = tl.sum(sums, axis=1)
    far = rows * tl.exp(-pace * tl.log(rows * mass))
    rows = tl.where(weight > 0, tl.where(pace == 1.0, 1.0 / mass, far), 0.0)
    tl.debug_barrier()
    return rows, 1 - turn, low, high, least, most, off


@triton.jit
def _range(low, high):
    """log(high / low), or a little more where they are close, without the logarithm's error."""
    ratio = high / low
    return tl.where(ratio < 1.5, ratio - 1.0, tl.log(ratio))
