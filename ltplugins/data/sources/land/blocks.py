# SPDX-License-Identifier: MIT
"""A spatial split: square blocks of the Earth are dealt to folds, folds become parts.

Places beside each other look alike, and windows overlap: a random split would test on what was
seen. A window belongs to a part only where all its pixels do; one across the border of two parts
belongs to none. Which block is in which fold hangs on the cover and on the blocks' size alone, not
on the windows, so that a network which was pretrained on tiles is tested, in a segmentation too, on
places that it has never seen.

Legend: N windows, F folds, B blocks, K classes.
"""

from functools import lru_cache

import numpy as np

from ltplugins.data.sources.land.maps import COVER_NAMES, HEIGHT, SOUTH_END, WIDTH, load_cover
from ltplugins.data.sources.land.options import PIXELS_A_DEGREE, LandConfig
from ltplugins.data.sources.land.windows import count_classes

TRAIN, PROBE, TEST = PARTS = (0, 1, 2)
NO_PART = -1
# What a block is weighed in: cells of a degree that one class fills by half.
_CELL = PIXELS_A_DEGREE


@lru_cache(maxsize=8)
def fold_map(block: int, folds: int) -> np.ndarray:
    """The fold of each block, Int[rows columns], blocks counted from the north-west corner.

    Args:
        block: degrees a side.
        folds: F.
    """
    weights = _weights(block)
    return _deal(weights.reshape(-1, weights.shape[-1]), folds).reshape(weights.shape[:2])


def part_map(cfg: LandConfig) -> np.ndarray:
    """The part of each block: ``fold`` is the test part, the next one the probe part."""
    folds = fold_map(cfg.block, cfg.folds)
    parts = np.full_like(folds, TRAIN)
    parts[folds == (cfg.fold + 1) % cfg.folds] = PROBE
    parts[folds == cfg.fold] = TEST
    return parts


def blocks_of(corners: np.ndarray, size: int, block: int) -> np.ndarray:
    """The blocks that each window touches, Int[N 4], some of them twice or more.

    Args:
        corners: Int[N 2], upper and left edge.
        size: pixels a side, at most a block: then its four corners lie in all blocks it touches.
        block: degrees a side.
    """
    side = block * PIXELS_A_DEGREE
    assert size <= side, "a window larger than a block"
    tops, lefts = corners.T
    columns = -(-WIDTH // side)
    places = [
        (tops + down) // side * columns + (lefts + right) // side
        for down in (0, size - 1)
        for right in (0, size - 1)
    ]
    return np.stack(places, axis=1)


def parts_of(corners: np.ndarray, size: int, cfg: LandConfig) -> np.ndarray:
    """The part of each window, Int[N]; NO_PART for one across a border of parts.

    Args:
        corners: Int[N 2], upper and left edge.
        size: pixels a side, at most a block.
        cfg: of the split.
    """
    found = part_map(cfg).ravel()[blocks_of(corners, size, cfg.block)].T
    return np.where((found == found[0]).all(0), found[0], NO_PART)


def _weights(block: int) -> np.ndarray:
    """What share of each land class lies in each block: Float[rows columns K]."""
    side = block * PIXELS_A_DEGREE
    cover = load_cover()[:SOUTH_END]
    counts = count_classes(cover, _CELL, _CELL, len(COVER_NAMES))[..., 1:]  # without water
    filled = counts.max(-1) >= _CELL**2 / 2
    rows, columns = np.nonzero(filled)
    shares = np.zeros((-(-HEIGHT // side), -(-WIDTH // side), counts.shape[-1]))
    middle = _CELL // 2
    place = ((rows * _CELL + middle) // side, (columns * _CELL + middle) // side)
    np.add.at(shares, (*place, counts[rows, columns].argmax(-1)), 1.0)
    return shares / np.maximum(shares.sum((0, 1)), 1.0)


def _deal(weights: np.ndarray, folds: int) -> np.ndarray:
    """Deal blocks to folds so that each fold gets as much of every class: Int[B].

    Greedy: blocks that hold most of some class come first, and go where the sum of squares grows
    least, then where there are fewest blocks.

    >>> _deal(np.array([[0.6, 0.0], [0.4, 0.5], [0.0, 0.5], [0.0, 0.0]]), 2).tolist()
    [0, 1, 0, 1]
    """
    totals, sizes = np.zeros((folds, weights.shape[1])), np.zeros(folds)
    dealt = np.zeros(len(weights), dtype=np.int64)
    for b in np.argsort(-weights.max(1), kind="stable"):
        growth = ((2 * totals + weights[b]) * weights[b]).sum(1)
        fold = int(np.lexsort((sizes, growth.round(12)))[0])  # sums differ in their last bits
        totals[fold] += weights[b]
        sizes[fold] += 1
        dealt[b] = fold
    return dealt
