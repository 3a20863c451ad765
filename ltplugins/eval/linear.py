# SPDX-License-Identifier: MIT
"""Linear probe on cached features: seeded n-shot draw, own validation split, refit on everything.

The test set's labels are not an argument: nothing can be chosen on them.

Legend: M labelled images, N test images, D dim, C classes.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from ltplugins.core.errors import UserError, unknown
from ltplugins.data.holdout import hold_out
from ltplugins.eval.logistic import Engine, fit_predict
from ltplugins.metrics.confidence import Predictions

log = logging.getLogger(__name__)

C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class ProbeResult:
    """What a probe predicted and how it was chosen.

    Attributes:
        found: predicted classes and confidence of the N test images, on the CPU.
        chosen_c: inverse regularisation strength of the final fit.
        val_accuracy: for each C tried, the mean of the classes' accuracies on the validation part;
            empty when there was nothing to choose (one C, or one image per class).
        n_train: images of the final fit.
        converged: the final fit met its tolerance within ``max_iter``.
    """

    found: Predictions
    chosen_c: float
    val_accuracy: dict[float, float]
    n_train: int
    converged: bool

    @property
    def preds(self) -> Tensor:
        """Int[N], the predicted classes."""
        return self.found.preds


def linear_probe(
    train_feats: Tensor,
    train_targets: Tensor,
    test_feats: Tensor,
    *,
    num_classes: int,
    shots: float | None = None,
    seed: int = 0,
    grid: Sequence[float] = C_GRID,
    val_fraction: float = 0.2,
    max_iter: int = 500,
    engine: Engine = "sklearn",
    adjust: float = 0.0,
    places: np.ndarray | None = None,
) -> ProbeResult:
    """Fit multinomial logistic regression on frozen features and predict the test images.

    C is chosen by class-balanced accuracy on a stratified ``val_fraction`` of the drawn images
    (ties go to the stronger regularisation), then the probe is fitted again on all of them.
    Features are standardised with the statistics of whatever part is being fitted.

    Args:
        train_feats: Float[M D].
        train_targets: Int[M], 0..C-1.
        test_feats: Float[N D].
        num_classes: C.
        shots: images drawn per class without replacement, or below 1 the share of each class, at
            least one image; None takes all.
        seed: of the draw and of the validation split.
        grid: values of C to try, the inverse of sklearn's L2 strength.
        val_fraction: share of each class held out while choosing C.
        max_iter: L-BFGS iterations of one fit.
        engine: ``sklearn``, or ``torch`` for the same objective on the features' device.
        adjust: tau of the logit adjustment, see :func:`ltplugins.eval.logistic.fit_predict`.
        places: Int[M K], see :func:`ltplugins.data.holdout.hold_out`.

    Raises:
        UserError: too few images for ``shots`` (naming the class), labels out of range, fewer than
            two classes, or an unknown engine.
    """
    if engine not in get_args(Engine):
        raise unknown("probe engine", engine, get_args(Engine))
    if not grid or min(grid) <= 0 or not 0 < val_fraction < 1:
        raise UserError(
            f"the probe needs positive values of C and 0 < val_fraction < 1, got grid={list(grid)} "
            f"and val_fraction={val_fraction}."
        )
    rng = np.random.default_rng(seed)
    labels = _labels(train_targets, num_classes)
    drawn = draw_shots(labels, num_classes, shots, rng)
    labels = labels[drawn]
    if len(np.unique(labels)) < 2:
        raise UserError("a linear probe needs images of at least two classes.")
    feats = train_feats[torch.from_numpy(drawn).to(train_feats.device)].float()
    grid = sorted(grid)
    fit, val = hold_out(labels, val_fraction, rng, None if places is None else places[drawn])
    scores: dict[float, float] = {}
    chosen = grid[len(grid) // 2]
    if len(grid) > 1 and len(val) and len(np.unique(labels[fit])) > 1:
        fits = fit_predict(feats[fit], labels[fit], feats[val], grid, max_iter, engine, adjust)
        scores = {
            c: _balanced(one.found.preds.numpy(), labels[val])
            for c, one in zip(grid, fits, strict=True)
        }
        chosen = max(grid, key=lambda c: (scores[c], -c))
    elif len(grid) > 1:
        log.warning("linear probe: too few images for a validation split; C=%g is used", chosen)
    test = test_feats.to(feats.device).float()
    [last] = fit_predict(feats, labels, test, [chosen], max_iter, engine, adjust)
    return ProbeResult(last.found, chosen, scores, len(labels), last.converged)


def draw_shots(
    labels: np.ndarray, num_classes: int, shots: float | None, rng: np.random.Generator
) -> np.ndarray:
    """Return sorted positions: all, ``shots`` random ones of every class, or a share of each.

    Raises:
        UserError: a class has fewer images than ``shots``, or ``shots`` <= 0.
    """
    if shots is None:
        return np.arange(len(labels))
    if shots <= 0:
        raise UserError(
            f"shots is {shots}: expected 1 or more images per class, a share of them, or 'full'."
        )
    sizes = np.bincount(labels, minlength=num_classes)[:num_classes]
    least = int(sizes.argmin())
    if shots < 1:
        wanted = np.minimum(np.maximum(1, np.round(shots * sizes)), sizes).astype(int)
    elif sizes[least] >= shots:
        wanted = np.full(num_classes, int(shots))
    else:
        raise UserError(
            f"a {shots}-shot probe needs {shots} labelled images per class, but class {least} has "
            f"{sizes[least]}. Set eval.linear.shots=[{sizes[least] or 'full'}] or [full], or give "
            f"a larger set: data.probe_path."
        )
    drawn = [
        rng.choice(np.flatnonzero(labels == label), wanted[label], replace=False)
        for label in range(num_classes)
    ]
    return np.sort(np.concatenate(drawn))


def _labels(targets: Tensor, num_classes: int) -> np.ndarray:
    labels = targets.detach().cpu().numpy()
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise UserError(
            f"probe label {wrong[0]} is outside 0..{num_classes - 1}; "
            "leave unlabelled images (-1) out of the probe set."
        )
    return labels


def _balanced(preds: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([np.mean(preds[truth == c] == c) for c in np.unique(truth)]))
