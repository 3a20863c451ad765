# SPDX-License-Identifier: MIT
"""What the tail costs: how much of a class's accuracy goes with its images, other things equal.

Groups of one run cannot tell: its rare classes may be the easy ones. Where several runs give the
same numbers of images to the classes in other orders, each class is compared with itself.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from ltplugins.report.paired import Paired

LEAST_ORDERS = 3


def tail_cost(images: Sequence[Sequence[int]], accuracy: Sequence[Sequence[float]]) -> Paired:
    """How much accuracy a class loses between the most images that a class has and the fewest.

    The slope of accuracy over the logarithm of images is taken by least squares, with a level of
    its own for each class, so that hard and easy classes count alike; better and worse runs cancel,
    for all of them have the same numbers of images. Its error is estimated class by class, for
    residuals of one class may go together (Student's t, a degree of freedom less than classes). A
    class that always has as many images says nothing.

    Args:
        images: of the training, (runs, classes).
        accuracy: fractions, (runs, classes).

    Returns:
        The slope times the logarithm's whole range, a fraction; positive where few images cost
        accuracy; ``n`` classes and no p. With ``n`` = 0 where the runs do not rotate: fewer than
        three, or other numbers of images.

    >>> images = [[100, 10, 1], [10, 1, 100], [1, 100, 10]]
    >>> accuracy = [[0.9, 0.7, 0.2], [0.8, 0.6, 0.4], [0.7, 0.8, 0.3]]  # 0.1 a factor of ten
    >>> found = tail_cost(images, accuracy)
    >>> found.n, round(found.effect, 4)
    (3, 0.2)
    """
    counts = np.asarray(images, dtype=float)
    if not _rotates(counts):
        return Paired(0)
    x = np.log(counts)
    x -= x.mean(axis=0)
    y = np.asarray(accuracy, dtype=float)
    square = (x**2).sum(axis=0)  # by class
    moved = int((square > 1e-9).sum())
    slope = float((x * y).sum() / square.sum())
    score = (x * (y - y.mean(axis=0))).sum(axis=0) - slope * square
    error = math.sqrt(moved / (moved - 1) * float((score**2).sum())) / float(square.sum())
    reach = float(stats.t.ppf(0.975, moved - 1)) * error
    whole = math.log(counts.max() / counts.min())
    return Paired(moved, slope * whole, (slope - reach) * whole, (slope + reach) * whole)


def _rotates(counts: np.ndarray) -> bool:
    """Whether the runs have the same numbers of images, in more orders than one."""
    if len(counts) < LEAST_ORDERS or counts.ndim != 2 or counts.min() < 1:
        return False
    ordered = np.sort(counts, axis=1)
    return bool((ordered == ordered[0]).all() and (counts != counts[0]).any())
