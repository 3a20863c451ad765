# SPDX-License-Identifier: MIT
"""Pictures of a segmentation show what the masks say."""

import numpy as np

from ltplugins.report.masks import (
    NO_CLASS,
    draw_class_iou,
    draw_masks,
    paint,
    palette,
    rare_misses,
)
from ltplugins.report.style import THEME, save, theme

RED, INK = (228, 0, 58), tuple(int(THEME["ink"][k : k + 2], 16) for k in (1, 3, 5))


def test_every_class_has_a_colour_of_its_own():
    colours = palette(150)
    assert colours.shape == (150, 3)
    assert len({tuple(c) for c in colours.tolist()}) == 150
    assert np.array_equal(palette(5), colours[:5])


def test_masks_are_painted():
    colours = palette(3)
    found = paint(np.array([[0, 2], [NO_CLASS, 1]], np.uint8), colours)
    assert np.array_equal(found[0], colours[[0, 2]])
    assert found[1, 0].tolist() == [255, 255, 255]


def test_where_rare_classes_were_missed():
    image = np.full((2, 2, 3), 90, np.uint8)
    truth = np.array([[2, 2], [0, 1]], np.uint8)
    preds = np.array([[2, 0], [2, 1]], np.uint8)  # one hit, one miss, one false alarm
    found = rare_misses(image, truth, preds, [2])
    assert tuple(found[0, 0]) == INK and tuple(found[0, 1]) == RED
    assert len(set(found[1, 0])) == 1 and np.array_equal(found[1, 0], found[1, 1])  # grey


def test_figures(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"class {c}" for c in range(20)]
    examples = []
    for size in (16, 24, 16):
        truth = rng.integers(0, 20, (size, size)).astype(np.uint8)
        truth[0] = NO_CLASS
        image = rng.integers(0, 255, (size, size, 3)).astype(np.uint8)
        examples.append((image, truth, rng.integers(0, 20, (size, size)).astype(np.uint8)))
    members = {"frequent": [*range(7)], "common": [*range(7, 14)], "rare": [*range(14, 20)]}
    with theme("masks"):
        figure = draw_masks(examples, names, members["rare"])
        assert len(figure.axes) == 16
        assert "class 19" in save(figure, tmp_path / "masks.png")
        per_class = [None if c == 3 else c / 20 for c in range(20)]
        svg = save(draw_class_iou(per_class, [*range(20)], members, names), tmp_path / "iou.png")
    assert "n/a" in svg
    assert svg.index("class 19") < svg.index("class 0 ")  # most training pixels first
    for name in ("masks.png", "iou.png"):
        assert (tmp_path / name).stat().st_size > 1000


def test_figures_of_many_classes():
    groups = {"frequent": [*range(50)], "common": [*range(50, 100)], "rare": [*range(100, 150)]}
    with theme("masks"):
        figure = draw_class_iou([0.5] * 150, [1] * 150, groups, [f"name {c}" for c in range(150)])
    assert not any("name" in tick.get_text() for tick in figure.axes[0].get_xticklabels())
