# SPDX-License-Identifier: MIT
"""What the tail costs: how much of a class's accuracy goes with its images, other things equal.

Groups of one run cannot tell: its rare classes may be the easy ones. Where several runs give the
same numbers of images to the classes in other orders, each class is compared with itself.
"""

import math
from collections.abc import Sequence

import numpy as np

from ltplugins.report.paired import Paired, paired

LEAST_ORDERS = 3


def tail_cost(images: Sequence[Sequence[int]], accuracy: Sequence[Sequence[float]]) -> Paired:
    """How much accuracy a class loses between the most images that a class has and the fewest.

    For each class the slope of its accuracy over the logarithm of its images is taken by least
    squares. Slopes times the logarithm's whole range are averaged over classes, with the interval
    over classes, so that hard and easy classes count alike. All classes of a run have as many
    images as those of any other, so that better runs hardly count. A class that always has the same
    number of images has no slope.

    Args:
        images: of the training, (runs, classes).
        accuracy: fractions, (runs, classes).

    Returns:
        Losses of classes as fractions, ``n`` classes; positive where few images cost accuracy. With
        ``n`` = 0 where the runs do not rotate: fewer than three, or other numbers of images.

    >>> images = [[100, 10, 1], [10, 1, 100], [1, 100, 10]]
    >>> accuracy = [[0.9, 0.7, 0.2], [0.8, 0.6, 0.4], [0.7, 0.8, 0.3]]  # 0.1 a factor of ten
    >>> found = tail_cost(images, accuracy)
    >>> found.n, round(found.effect, 4)
    (3, 0.2)
    """
    counts = np.asarray(images, dtype=float)
    if not _rotates(counts):
        return Paired(0)
    shares = np.asarray(accuracy, dtype=float)
    x = np.log(counts)
    x -= x.mean(axis=0)
    square = (x**2).sum(axis=0)
    moved = square > 1e-9
    slopes = (x * shares).sum(axis=0)[moved] / square[moved]
    reach = math.log(counts.max() / counts.min())
    return paired([float(slope) * reach for slope in slopes])


def _rotates(counts: np.ndarray) -> bool:
    """Whether the runs have the same numbers of images, in more orders than one."""
    if len(counts) < LEAST_ORDERS or counts.ndim != 2 or counts.min() < 1:
        return False
    ordered = np.sort(counts, axis=1)
    return bool((ordered == ordered[0]).all() and (counts != counts[0]).any())
