# SPDX-License-Identifier: MIT
"""Square windows on a regular grid of a map, and how many pixels of each class lie under them.

Legend: H, W of the map, R rows and L columns of the grid, K classes.
"""

import numpy as np


def grid(shape: tuple[int, ...], size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The upper edges Int[R] and left edges Int[L] of all windows that lie within a map.

    >>> [edges.tolist() for edges in grid((10, 13), 4, 3)]
    [[0, 3, 6], [0, 3, 6, 9]]
    """
    tops, lefts = (np.arange(0, side - size + 1, stride) for side in shape[:2])
    return tops, lefts


def count_classes(cover: np.ndarray, size: int, stride: int, num_classes: int) -> np.ndarray:
    """Count the pixels of each class under each window of :func:`grid`.

    The map is counted once, in the cells that all windows' edges cut it into; a window is a sum of
    cells, from four corners of their running sums.

    Args:
        cover: uint8 [H, W], classes.
        size: pixels a side of a window.
        stride: pixels from one window to the next.
        num_classes: K.

    Returns:
        Int[R L K].

    >>> count_classes(np.array([[0, 0, 1], [0, 2, 1]]), 2, 1, 3).tolist()
    [[[3, 0, 1], [1, 2, 1]]]
    """
    starts = grid(cover.shape, size, stride)
    edges = [np.unique(np.concatenate([s, s + size])) for s in starts]
    rows, columns = (np.repeat(np.arange(len(e) - 1), np.diff(e)) for e in edges)
    height, width = len(edges[0]) - 1, len(edges[1]) - 1
    cell = (rows[:, None] * width + columns) * num_classes
    inner = cover[: edges[0][-1], : edges[1][-1]]
    found = np.bincount((cell + inner).ravel(), minlength=height * width * num_classes)
    sums = np.zeros((height + 1, width + 1, num_classes), dtype=np.int64)
    sums[1:, 1:] = found.reshape(height, width, num_classes).cumsum(0).cumsum(1)
    (top, bottom), (left, right) = (
        (np.searchsorted(e, s), np.searchsorted(e, s + size))
        for e, s in zip(edges, starts, strict=True)
    )
    strips = sums[bottom] - sums[top]
    return strips[:, right] - strips[:, left]


def cut(plane: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """Cut windows out of a map [H, W] or [H, W, 3].

    Args:
        plane: the map.
        corners: Int[N 2], upper and left edge.
        size: S.

    Returns:
        [N, S, S] or [N, S, S, 3], a copy.
    """
    views = np.lib.stride_tricks.sliding_window_view(plane, (size, size), axis=(0, 1))
    found = views[corners[:, 0], corners[:, 1]]
    return np.ascontiguousarray(np.moveaxis(found, 1, -1)) if plane.ndim == 3 else found
