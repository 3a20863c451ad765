# SPDX-License-Identifier: MIT
"""The report's pictures of a segmentation: images with masks, and IoU by class.

Each function takes what it draws and returns a figure; draw inside ``style.theme``.

Legend: C classes, H, W of an image.
"""

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ltplugins.report.style import CLASSES, THEME, WIDTH

NO_CLASS = 255
_SHOTS = {"frequent": "#77838f", "common": "#4f81bd", "rare": "#d55e00"}
_MISSED, _HIT = "#e4003a", "#1f2933"  # of no class
_NAMED = 40  # classes up to which each one gets its name below the bars


def palette(num_classes: int) -> np.ndarray:
    """Colours of classes, uint8 [C 3]; beyond those of the style, hues a golden angle apart."""
    known = [tuple(int(c[k : k + 2], 16) for k in (1, 3, 5)) for c in CLASSES]
    for k in range(num_classes - len(known)):
        hue, light = (0.11 + 0.618034 * k) % 1, 0.35 + 0.15 * (k % 3)
        known.append(tuple(round(255 * v) for v in colorsys.hls_to_rgb(hue, light, 0.6)))
    return np.array(known[:num_classes], dtype=np.uint8)


def paint(mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A mask uint8 [H W] in its classes' colours, uint8 [H W 3]; no class is white."""
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[: len(colours)] = colours
    return table[mask]


def rare_misses(
    image: np.ndarray, truth: np.ndarray, found: np.ndarray, rare: Sequence[int]
) -> np.ndarray:
    """The image in faint grey, pixels of rare classes on it: found in ink, missed in red.

    Args:
        image: uint8 [H W 3].
        truth, found: uint8 [H W].
        rare: class ids.
    """
    grey = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1) * 0.35 + 155
    is_rare = np.isin(truth, rare)
    for colour, where in (
        (_HIT, is_rare & (truth == found)),
        (_MISSED, is_rare & (truth != found)),
    ):
        grey[where] = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return grey.astype(np.uint8)


def draw_masks(
    examples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    rare: Sequence[int],
) -> Figure:
    """Image, truth, prediction and misses of rare classes, an example a row, two rows side by side.

    Args:
        examples: image uint8 [H W 3], truth and prediction uint8 [H W].
        class_names: C.
        rare: class ids.
    """
    colours = palette(len(class_names))
    pairs_a_line = 2 if len(examples) > 1 else 1
    lines = -(-len(examples) // pairs_a_line)
    side = WIDTH / (4 * pairs_a_line)
    seen = np.unique(np.concatenate([m.ravel() for _, *masks in examples for m in masks]))
    seen = seen[seen < len(class_names)]
    legend_lines = -(-len(seen) // 6) + 1
    figure = Figure(figsize=(WIDTH, lines * (side + 0.05) + 0.2 * legend_lines + 0.5))
    figure.set_layout_engine("constrained", h_pad=0.02, w_pad=0.02)
    axes = figure.subplots(lines, 4 * pairs_a_line, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for place, (image, truth, preds) in enumerate(examples):
        line, column = divmod(place, pairs_a_line)
        shown = {
            "image": image,
            "truth": paint(truth, colours),
            "prediction": paint(np.where(truth == NO_CLASS, truth, preds), colours),
            "rare classes": rare_misses(image, truth, preds, rare),
        }
        for offset, (title, pixels) in enumerate(shown.items()):
            axis = axes[line, 4 * column + offset]
            axis.imshow(pixels, interpolation="nearest")
            if line == 0:
                axis.set_title(title)
    handles = [Patch(color=colours[c] / 255, label=class_names[c]) for c in seen]
    style: dict[str, Any] = {"fontsize": 8, "handlelength": 1.2, "columnspacing": 1.2}
    figure.legend(handles=handles, loc="outside lower left", ncols=6, **style)
    found = [Patch(color=_HIT, label="rare, found"), Patch(color=_MISSED, label="rare, missed")]
    figure.legend(handles=found, loc="outside upper right", ncols=2, **style)
    return figure


def draw_class_iou(
    per_class: Sequence[float | None],
    pixel_counts: Sequence[int],
    members: dict[str, list[int]],
    class_names: Sequence[str],
) -> Figure:
    """IoU of each class, most training pixels first, in the colour of its group.

    Args:
        per_class: Float[C]; None = no test pixel, drawn as n/a.
        pixel_counts: Int[C], of the training.
        members: class ids of frequent, common and rare.
        class_names: C.
    """
    order = sorted(range(len(per_class)), key=lambda c: (-pixel_counts[c], c))
    group = {c: name for name, labels in members.items() for c in labels}
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axis = figure.subplots()
    for place, c in enumerate(order):
        value = per_class[c]
        if value is None:
            axis.text(place, 1, "n/a", ha="center", fontsize=7, color=THEME["muted"])
            continue
        axis.bar(place, 100 * value, 0.8, color=_SHOTS[group[c]])
        if len(order) <= _NAMED:
            axis.text(place, 100 * value + 1, f"{100 * value:.0f}", ha="center", fontsize=7.5)
    if len(order) <= _NAMED:
        total = max(1, sum(pixel_counts))
        names = [f"{class_names[c]} {_share(pixel_counts[c] / total)}" for c in order]
        axis.set_xticks(range(len(order)), names, rotation=40, ha="right", fontsize=8)
    for name, colour in _SHOTS.items():
        axis.bar(0, 0, color=colour, label=name)
    axis.legend(loc="upper right", ncols=3)
    axis.set_ylim(0, 105)
    axis.set_ylabel("IoU (%)")
    axis.set_xlabel("classes, most training pixels first; share of these pixels")
    return figure


def _share(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2f} %"
