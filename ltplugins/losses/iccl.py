# SPDX-License-Identifier: MIT
"""ICCL-style losses: centroids to contrast with, mixup cross-entropy, distillation; pure functions.

Paper: Tiong, Li, Lin, Li, Xiong, Hoi, "Improving Tail-Class Representation with Centroid
Contrastive Learning", 2021, https://arxiv.org/abs/2110.10048; patent US20220156530A1.
Official code: none was found.

The full text was not read, only the abstracts of paper and patent. From them come the class
centroids, the interpolation of a class-agnostic with a class-aware image, the prediction of both
source classes from the centroids, and the balancing of the classifier. The rest is recollection or
our choice, and every constant an option:
- the softmax over centroids with one temperature; unit norm of z and centroids;
- centroids as an EMA of batch means (not of images one by one: the order would count), started by
  the first observation, with a momentum that grows with a class's updates (``bias_correction``);
- the curriculum that moves weight from the clean to the mixed branch;
- the form of the distillation term.

Legend: N images (or pairs) of this rank, D embedding dim, C classes.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.core.errors import UserError, unknown
from ltplugins.core.precision import full_precision
from ltplugins.losses.terms.distillation import distillation_loss
from ltplugins.losses.terms.masked import masked_log_softmax

Curriculum = Literal["parabolic-style", "linear-style", "constant"]
# Below this norm a mean of unit vectors has no direction to speak of.
_NO_DIRECTION = 1e-6


def mix_images(first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
    """Interpolated images: lam * first + (1 - lam) * second.

    >>> black, white = torch.zeros(2, 1), torch.ones(2, 1)
    >>> mix_images(black, white, torch.tensor([0.25, 1.0])).tolist()
    [[0.75], [0.0]]

    Args:
        first, second: Float[N ...].
        lam: Float[N] in [0, 1].
    """
    lam = lam.to(first.dtype).view(-1, *[1] * (first.ndim - 1))
    return lam * first + (1 - lam) * second


@full_precision
def centroid_loss(
    z: Tensor,
    centroids: Tensor,
    targets_a: Tensor,
    targets_b: Tensor,
    lam: Tensor,
    *,
    temperature: float,
    filled: Tensor | None = None,
) -> Tensor:
    """Retrieve the centroids of both source classes: -lam log P_a - (1 - lam) log P_b, mean over N.

    P is the softmax of z . c / temperature over the classes that have a centroid. The term of a
    class that has none yet is 0.

    Args:
        z: Float[N D], any scale.
        centroids: Float[C D], unit norm; they get no gradient.
        targets_a, targets_b: Int[N], 0..C-1.
        lam: Float[N], share of class a.
        temperature: above 0.
        filled: Bool[C], which classes have a centroid; None for all.

    Returns:
        Scalar, at least float32.

    Raises:
        UserError: shapes that do not fit, a temperature that cannot be.
    """
    _check_rows(z, centroids, targets_a, targets_b, lam)
    if not temperature > 0:
        raise UserError(f"temperature: expected a number above 0, got {temperature}.")
    z = F.normalize(z, dim=1)
    logits = z @ centroids.detach().to(z.dtype).T / temperature  # (N, C)
    log_p = logits.log_softmax(dim=1) if filled is None else masked_log_softmax(logits, ~filled)
    lam = lam.to(log_p.dtype)
    term_a, term_b = (_picked(log_p, t, filled) for t in (targets_a, targets_b))
    return -(lam * term_a + (1 - lam) * term_b).mean()


def _picked(log_p: Tensor, targets: Tensor, filled: Tensor | None) -> Tensor:
    """Each row's log-probability of its class, 0 where the class has no centroid: Float[N]."""
    picked = log_p.gather(1, targets[:, None])[:, 0]
    return picked if filled is None else torch.where(filled[targets], picked, 0.0)


@full_precision
def mixup_cross_entropy(
    logits: Tensor, targets_a: Tensor, targets_b: Tensor, lam: Tensor
) -> Tensor:
    """lam CE(logits, a) + (1 - lam) CE(logits, b), mean over N.

    Args:
        logits: Float[N C].
        targets_a, targets_b: Int[N].
        lam: Float[N].
    """
    lam = lam.to(logits.dtype)
    loss_a = F.cross_entropy(logits, targets_a, reduction="none")
    loss_b = F.cross_entropy(logits, targets_b, reduction="none")
    return (lam * loss_a + (1 - lam) * loss_b).mean()


def curriculum_weights(progress: float, kind: Curriculum) -> tuple[float, float]:
    """Weights of the clean and of the mixed branch; they add up to 1 unless ``constant``.

    ``parabolic-style``: 1 - p^2 and p^2, recalled with low confidence; ``linear-style``: 1 - p and
    p; ``constant``: 1 and 1.

    >>> curriculum_weights(0.5, "parabolic-style")
    (0.75, 0.25)

    Args:
        progress: p, completed share of the run, 0 to 1.

    Raises:
        UserError: an unknown kind.
    """
    if kind == "constant":
        return 1.0, 1.0
    if kind == "parabolic-style":
        return 1.0 - progress**2, progress**2
    if kind == "linear-style":
        return 1.0 - progress, progress
    raise unknown("curriculum", kind, ("parabolic-style", "linear-style", "constant"))


@torch.no_grad()
@full_precision
def update_centroids(
    centroids: Tensor,
    updates: Tensor,
    z: Tensor,
    targets: Tensor,
    momentum: float,
    *,
    bias_correction: bool = True,
) -> tuple[Tensor, Tensor]:
    """EMA of the batch's class means: c_k = normalise(m c_k + (1 - m) mean of z with target k).

    A class's first observation becomes its centroid; a class that is absent keeps its own. Under
    ``bias_correction`` m is at most u / (u + 1) at the (u+1)-th update, so that a centroid is the
    plain mean of its updates until the EMA's window is full. Without it a tail class that is seen 5
    times an epoch still holds 37 % of its first observation after 200 epochs at m = .999.

    Args:
        centroids: Float[C D].
        updates: Int[C], updates so far; 0 = no centroid yet, the row's values are not used.
        z: Float[N D], any scale, of all ranks; images that are not interpolated.
        targets: Int[N]; rows with -1 are left out.
        momentum: m, 0 to 1.
        bias_correction: see above.

    Returns:
        The new centroids, unit norm, and the new number of updates; without gradient.
    """
    z = F.normalize(z.detach().to(centroids.dtype), dim=1)
    classes = torch.arange(len(centroids), device=z.device)
    member = (targets[:, None] == classes).to(z.dtype)  # (N, C)
    counts = member.sum(dim=0)
    means = member.T @ z / counts.clamp(min=1)[:, None]  # (C, D)
    seen = updates.to(z.dtype)
    keep = (updates > 0) * torch.full_like(seen, momentum)
    if bias_correction:
        keep = torch.minimum(keep, seen / (seen + 1))
    moved = keep[:, None] * centroids + (1 - keep)[:, None] * means
    norm = moved.norm(dim=1)
    # Embeddings that cancel have no direction: such a class keeps what it has.
    changed = (counts > 0) & (norm > _NO_DIRECTION)
    new = torch.where(changed[:, None], moved / norm.clamp(min=_NO_DIRECTION)[:, None], centroids)
    return new, updates + changed


def balance_loss(
    logits: Tensor,
    targets: Tensor,
    teacher: Tensor | None = None,
    *,
    weight: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """(1 - w) CE + w T^2 KL(teacher || student), the balancing stage's loss.

    Args:
        logits: Float[N C].
        targets: Int[N].
        teacher: Float[N C], logits of the first stage's classifier; only used if w > 0.
        weight: w, 0 to 1.
        temperature: T.
    """
    class_loss = full_precision(F.cross_entropy)(logits, targets)
    if weight == 0 or teacher is None:
        return class_loss
    distilled = distillation_loss(logits, teacher, temperature=temperature)
    return (1 - weight) * class_loss + weight * distilled


def _check_rows(
    z: Tensor, centroids: Tensor, targets_a: Tensor, targets_b: Tensor, lam: Tensor
) -> None:
    rows = {"targets_a": targets_a, "targets_b": targets_b, "lam": lam}
    wrong = [f"{k} {tuple(v.shape)}" for k, v in rows.items() if v.shape != z.shape[:1]]
    if z.ndim != 2 or len(z) == 0 or centroids.ndim != 2 or centroids.shape[1] != z.shape[-1]:
        wrong.append(f"z {tuple(z.shape)} with centroids {tuple(centroids.shape)}")
    if wrong:
        raise UserError(
            f"centroid_loss: expected z (N, D) with N >= 1, centroids (C, D), targets and lam "
            f"(N,); got {', '.join(wrong)} for z {tuple(z.shape)}."
        )
