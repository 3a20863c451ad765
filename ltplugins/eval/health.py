# SPDX-License-Identifier: MIT
"""Health of a finished run's features, from test images: see :mod:`ltplugins.metrics.health`."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ltplugins.eval.banks import Features
from ltplugins.eval.options import HealthConfig
from ltplugins.metrics.collapse import Health
from ltplugins.metrics.health import alignment, class_means, etf_deviation, measure

Views = Callable[[np.ndarray], tuple[Tensor, Tensor]]


def measure_health(cfg: HealthConfig, test: Features, views: Views) -> Health | None:
    """Measure some of the test images, the same ones for every run; None where there is but one.

    Args:
        cfg: how many.
        test: features of all test images; their labels serve the classes' means alone, which are
            over all images.
        views: positions -> features of two random views of those images, as training sees them.
    """
    order = np.random.default_rng(0).permutation(len(test.targets))
    if len(order) < 2:
        return None
    found = measure(test.feats[torch.from_numpy(np.sort(order[: cfg.images]))])
    means = class_means(test.feats, test.targets)
    pair = views(np.sort(order[: cfg.views])) if cfg.views else None
    return dataclasses.replace(
        found,
        alignment=None if pair is None else alignment(*pair),
        etf=None if means is None else etf_deviation(means),
    )
