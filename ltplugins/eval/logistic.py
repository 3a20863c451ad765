# SPDX-License-Identifier: MIT
"""Logistic regression on standardised features: scikit-learn's, and its objective on any device.

Logit adjustment: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021,
https://arxiv.org/abs/2007.07314, equation 10; at tau = 1 it is the balanced softmax of Ren et al.,
NeurIPS 2020, https://arxiv.org/abs/2007.10740.

Legend: M fitted images, N others, D dim, C classes.
"""

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.metrics.confidence import Predictions, top_class

Engine = Literal["sklearn", "torch"]


class Fit(NamedTuple):
    """Predictions of one fit, and whether it met its tolerance."""

    found: Predictions
    converged: bool


def fit_predict(
    feats: Tensor,
    labels: np.ndarray,
    other: Tensor,
    grid: Sequence[float],
    max_iter: int,
    engine: str,
    adjust: float = 0.0,
) -> list[Fit]:
    """For each C in ascending order fit on ``feats`` and predict ``other``.

    Each fit starts at the previous solution, which is what makes a grid cheap.

    Args:
        feats: Float[M D]; standardised here, by their own statistics.
        labels: Int[M].
        other: Float[N D].
        grid: inverse regularisation strengths.
        engine: ``sklearn`` or ``torch``.
        adjust: tau; the loss takes logits + tau log(share of the class among ``labels``), the
            predictions are without. With it the engine is torch, since scikit-learn has no offsets.
    """
    mean, std = feats.mean(dim=0), feats.std(dim=0, correction=0)
    std = torch.where(std > 1e-8, std, torch.ones_like(std))  # a dead unit stays at zero
    feats, other = (feats - mean) / std, (other - mean) / std
    fit = _fit_torch if engine == "torch" or adjust else _fit_sklearn
    return fit(feats, labels, other, grid, max_iter, adjust)


def _fit_torch(
    feats: Tensor,
    labels: np.ndarray,
    other: Tensor,
    grid: Sequence[float],
    max_iter: int,
    adjust: float,
) -> list[Fit]:
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    feats, other = feats.double(), other.double()
    targets = torch.from_numpy(codes).to(feats.device)
    offset = adjust * torch.from_numpy(counts / len(labels)).log().to(feats.device)
    weight: Tensor | None = None
    results = []
    for c in grid:
        weight, converged = fit_softmax(
            feats, targets, len(classes), c, max_iter, weight, offset=offset
        )
        probs = torch.softmax(other @ weight[:, :-1].T + weight[:, -1], dim=1)
        results.append(Fit(_named(probs, classes), converged))
    return results


def _fit_sklearn(
    feats: Tensor,
    labels: np.ndarray,
    other: Tensor,
    grid: Sequence[float],
    max_iter: int,
    adjust: float,
) -> list[Fit]:
    # Not at the top: whoever only trains reads this file for its options.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    assert not adjust
    model = LogisticRegression(warm_start=True, max_iter=max_iter)
    inputs, queries = feats.cpu().numpy(), other.cpu().numpy()
    results = []
    for c in grid:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=c).fit(inputs, labels)
        probs = torch.from_numpy(model.predict_proba(queries))
        converged = bool(np.max(model.n_iter_) < max_iter)
        results.append(Fit(_named(probs, model.classes_), converged))
    return results


def _named(probs: Tensor, classes: np.ndarray) -> Predictions:
    """Columns of probabilities as the class ids that they stand for."""
    found = top_class(probs)
    return found._replace(preds=torch.from_numpy(classes)[found.preds])


@torch.enable_grad()
def fit_softmax(
    feats: Tensor,
    targets: Tensor,
    num_classes: int,
    c: float,
    max_iter: int = 500,
    start: Tensor | None = None,
    tolerance: float = 1e-4,
    offset: Tensor | None = None,
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
        offset: Float[C], added to the logits in the loss alone; None = 0.

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
        logits = logits if offset is None else logits + offset
        loss = F.cross_entropy(logits, targets) + penalty * weight[:, :-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    closure()
    assert weight.grad is not None
    return weight.detach(), bool(weight.grad.abs().max() <= tolerance)
