# SPDX-License-Identifier: MIT
"""Geometric Harmonization: category-level uniformity without labels, as pure functions.

Paper: Zhou et al., "Combating Representation Learning Disparity with Geometric Harmonization",
NeurIPS 2023, https://arxiv.org/abs/2310.17622
Official code: https://github.com/MediaBrain-SJTU/Geometric-Harmonization at 9f7057c

Known differences from the official code:
- The simplex ETF is built from an orthonormal basis of the zero-sum subspace, which is exact up to
  K = D + 1 (the official polar construction is exact up to K = D). Above that, directions that are
  only approximately uniform are optimised here; the official repository expects a file it lacks.
- Sinkhorn keeps its potentials in log space, so neither fp16 nor a prior with zeros overflows, and
  leaves out iterations that can no longer change a label by 6e-5, or takes fewer, longer ones.
- Memory rows start from their first observation, not from uninitialised values.

Legend: B global batch, K directions, D embedding dim, N training images.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.precision import full_precision
from ltplugins.core.transfer import runs_behind
from ltplugins.losses.terms.sinkhorn import sinkhorn


def simplex_etf(
    num_directions: int,
    dim: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return K unit directions in R^D that are as far from one another as can be.

    For ``K <= D + 1`` the result is an exact simplex equiangular tight frame: pairwise inner
    products are -1/(K-1), the rows sum to zero, the rank is K-1; the generator only turns it.
    For ``K > D + 1`` no such frame exists. The result then minimises the Gaussian potential
    log mean_ij exp(2 t_i . t_j) (Wang & Isola 2020) by gradient descent: nearly uniform and
    nearly centred, not equiangular.

    >>> etf = simplex_etf(4, 8, generator=torch.Generator().manual_seed(0))
    >>> [round(float(etf[0] @ direction), 3) for direction in etf]
    [1.0, -0.333, -0.333, -0.333]

    Args:
        num_directions: K >= 2.
        dim: D >= 1.
        generator: source of the random rotation (CPU); ``None`` uses torch's global one.
        dtype: of the result, torch's default if ``None``. The work is done in float64.

    Returns:
        Float[K D], unit-norm rows.

    Raises:
        UserError: K < 2 or D < 1.
    """
    if num_directions < 2 or dim < 1:
        raise UserError(
            f"simplex_etf needs num_directions >= 2 and dim >= 1, got {num_directions} and {dim}."
        )
    dtype = dtype or torch.get_default_dtype()
    if num_directions > dim + 1:
        return _uniform_directions(num_directions, dim, generator).to(dtype)
    basis = _zero_sum_basis(num_directions)  # (K, K-1)
    gauss = torch.randn(dim, num_directions - 1, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(gauss).Q.T  # (K-1, D), orthonormal rows
    scale = math.sqrt(num_directions / (num_directions - 1))
    return (scale * basis @ rotation).to(dtype)


def _zero_sum_basis(size: int) -> Tensor:
    """Helmert's contrasts: Float64[K K-1], orthonormal columns, each summing to zero."""
    basis = torch.zeros(size, size - 1, dtype=torch.float64)
    for k in range(1, size):
        basis[:k, k - 1] = 1.0 / math.sqrt(k * (k + 1))
        basis[k, k - 1] = -k / math.sqrt(k * (k + 1))
    return basis


def _uniform_directions(
    num_directions: int, dim: int, generator: torch.Generator | None, steps: int = 300
) -> Tensor:
    """Minimise the Gaussian potential of K > D + 1 points on the sphere, from random ones."""
    start = torch.randn(num_directions, dim, generator=generator, dtype=torch.float64)
    with torch.enable_grad():
        points = start.requires_grad_(True)
        optimizer = torch.optim.Adam([points], lr=0.05)
        for _ in range(steps):
            unit = F.normalize(points, dim=1)
            potential = torch.logsumexp((2.0 * unit @ unit.T).flatten(), dim=0)
            optimizer.zero_grad()
            potential.backward()
            optimizer.step()
    return F.normalize(points.detach(), dim=1)


@full_precision
def geometric_logits(z: Tensor, etf: Tensor) -> Tensor:
    """Project embeddings on the K directions and rescale each row to unit length.

    The part of z outside the (K-1)-dimensional frame and the length of z have no influence.

    Args:
        z: Float[B D], any scale.
        etf: Float[K D], from :func:`simplex_etf`.

    Returns:
        t: Float[B K], unit-norm rows, at least float32.

    Raises:
        UserError: the dimensions of ``z`` and ``etf`` differ.
    """
    if z.shape[-1] != etf.shape[-1]:
        raise UserError(
            f"geometric_logits: z has dimension {z.shape[-1]}, the directions have "
            f"{etf.shape[-1]}; build them with simplex_etf(K, {z.shape[-1]})."
        )
    return F.normalize(z @ etf.to(z.dtype).T, dim=-1)


def gh_cross_entropy(
    assignments: Tensor, logits: Tensor, temperature: float, counted: Tensor | None = None
) -> Tensor:
    """One direction of the swap: -mean_i sum_k q[i, k] log softmax(t / temperature)[i, k].

    Args:
        counted: Bool[B], the rows i of the mean; None for all. Of none the mean is 0.
    """
    terms = (assignments * F.log_softmax(logits / temperature, dim=1)).sum(dim=1)
    if counted is None:
        return -terms.mean()
    return -terms.where(counted, 0.0).sum() / counted.sum().clamp(min=1)


@full_precision
def gh_loss(
    logits_1: Tensor,
    logits_2: Tensor,
    prior: Tensor | None = None,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    num_iters: int = 300,
    tolerance: float | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """Swapped cross-entropy between surrogate labels and predictions of two views.

    The sum of both directions, without 1/2, as in the official code.

    Args:
        logits_1, logits_2: Float[B K], geometric logits of the two views, global batch.
        prior: Float[K], the population prior of :func:`sinkhorn`.
        temperature: gamma of the predictions.
        epsilon, num_iters, tolerance: of :func:`sinkhorn`.
        counted: Bool[B], the rows that the loss is of; None for all. Of none it is 0.

    Returns:
        Scalar; gradient flows through the predictions only.

    Raises:
        UserError: the two views differ in shape.
    """
    if logits_1.shape != logits_2.shape:
        raise UserError(
            f"gh_loss: the views differ in shape, {tuple(logits_1.shape)} "
            f"and {tuple(logits_2.shape)}."
        )
    if counted is not None and not runs_behind(counted):
        # On a GPU their number would be waited for; here leaving them out is less work.
        logits_1, logits_2, counted = logits_1[counted], logits_2[counted], None
        if not len(logits_1):
            return logits_1.sum()
    q_1, q_2 = sinkhorn(
        torch.stack([logits_1, logits_2]),
        prior,
        epsilon=epsilon,
        num_iters=num_iters,
        tolerance=tolerance,
        counted=counted,
    )
    return gh_cross_entropy(q_1, logits_2, temperature, counted) + gh_cross_entropy(
        q_2, logits_1, temperature, counted
    )


def ramp_weight(epoch: int, warmup: float, ramp: float) -> float:
    """The ramp w(e): 0 up to the end of warm-up, then linearly to 1 within ``ramp`` epochs.

    Args:
        epoch: 1-based.
        warmup: E_w, epochs.
        ramp: R, epochs; 0 makes a step.
    """
    if epoch <= warmup:
        return 0.0
    return 1.0 if ramp <= 0 else min(1.0, (epoch - warmup) / ramp)


@torch.no_grad()
def direction_counts(memory: Tensor, filled: Tensor) -> Tensor:
    """Number of observed images whose row is largest on each direction: Int[K].

    The counts of a memory's parts add up to those of the whole.
    """
    counts = torch.zeros(memory.shape[1], dtype=torch.int64, device=memory.device)
    return counts.index_add_(0, memory.argmax(dim=1), filled.long())


def prior_from_counts(counts: Tensor, floor: float = 0.0) -> Tensor:
    """Shares of the counts after ``floor`` is added to each: Float[K]; uniform where all are 0."""
    shares = counts.float() + floor
    total = shares.sum()
    uniform = torch.full_like(shares, 1.0 / len(shares))
    return torch.where(total > 0, shares / total.clamp(min=1e-12), uniform)


def largest_shares(prior: Tensor, tenths: int) -> Tensor:
    """What part of the images the largest so many tenths of the directions hold: Float[].

    Between two directions it is interpolated, so that priors over other numbers of directions, or
    classes, can be compared: under a uniform prior each tenth holds a tenth.
    """
    below, part = divmod(tenths * len(prior), 10)
    largest = prior.sort(descending=True).values
    return largest[:below].sum() + largest[below : below + 1].sum() * part / 10
