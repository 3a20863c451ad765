# SPDX-License-Identifier: MIT
"""Windows of a map against loops over them."""

import numpy as np
import pytest

from ltplugins.data.sources.land.windows import count_classes, cut, grid

MAP = np.random.default_rng(0).integers(0, 5, (37, 53)).astype(np.uint8)


@pytest.mark.parametrize(("size", "stride"), [(8, 4), (8, 8), (7, 3), (5, 9), (37, 1), (1, 1)])
def test_classes_are_counted_as_a_loop_counts_them(size, stride):
    found = count_classes(MAP, size, stride, 6)
    tops, lefts = grid(MAP.shape, size, stride)
    assert found.shape == (len(tops), len(lefts), 6)
    assert tops[-1] + size <= 37 < tops[-1] + size + stride
    for i, top in enumerate(tops):
        for k, left in enumerate(lefts):
            under = MAP[top : top + size, left : left + size]
            assert found[i, k].tolist() == np.bincount(under.ravel(), minlength=6).tolist()


def test_a_cut_is_what_lies_there():
    corners = np.array([[0, 0], [30, 46], [5, 17]])
    colours = np.stack([MAP, MAP + 50, MAP + 100], axis=-1)
    for plane in (MAP, colours):
        for (top, left), tile in zip(corners, cut(plane, corners, 7), strict=True):
            assert np.array_equal(tile, plane[top : top + 7, left : left + 7])
    assert cut(colours, corners[:0], 7).shape == (0, 7, 7, 3)
