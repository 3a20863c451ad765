# SPDX-License-Identifier: MIT
"""L-BFGS for scikit-learn's logistic regression objective, on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.enable_grad()
def fit_softmax(
    feats: Tensor,
    targets: Tensor,
    num_classes: int,
    c: float,
    max_iter: int = 500,
    start: Tensor | None = None,
    tolerance: float = 1e-4,
) -> tuple[Tensor, bool]:
    """Minimise mean cross-entropy + ||W||^2 / (2 c M); the bias is not regularised.

    This is scikit-learn's objective divided by c M, so that c means the same in both engines.

    Args:
        feats: Float[M D], standardised, in float64: in float32 the line search stops early, since
            the loss no longer changes while the gradient is still above the tolerance.
        targets: Int[M], 0..C-1, every class present.
        num_classes: C.
        c: inverse regularisation strength.
        max_iter: L-BFGS iterations.
        start: Float[C D+1], where to begin; zeros if None.
        tolerance: largest gradient component at which the fit counts as converged
            (the default is scikit-learn's).

    Returns:
        Float[C D+1] (the last column is the bias), and whether the tolerance was met.
    """
    shape = (num_classes, feats.shape[1] + 1)
    weight = feats.new_zeros(shape) if start is None else start.clone()
    weight.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [weight],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    penalty = 0.5 / (c * feats.shape[0])

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = feats @ weight[:, :-1].T + weight[:, -1]
        loss = F.cross_entropy(logits, targets) + penalty * weight[:, :-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    closure()
    assert weight.grad is not None
    return weight.detach(), bool(weight.grad.abs().max() <= tolerance)
