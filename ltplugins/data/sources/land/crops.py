# SPDX-License-Identifier: MIT
"""Crops for segmentation: images with a class for every pixel.

Legend: N crops, S their size, K classes.
"""

from typing import Literal, NamedTuple

import numpy as np

from ltplugins.data.sources.land.blocks import PROBE, TEST, TRAIN, parts_of
from ltplugins.data.sources.land.maps import COVER_NAMES, WATER, load_maps
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.data.sources.land.tiles import labelled_windows
from ltplugins.data.sources.land.windows import cut

_NUMBERS = {"train": TRAIN, "val": PROBE, "test": TEST}


class Crops(NamedTuple):
    """Images and masks of one part.

    Attributes:
        images: uint8 [N, S, S, 3].
        masks: uint8 [N, S, S], places in ``class_names``; every pixel has one.
        corners: Int[N 2], upper and left edge in the maps.
        class_names: K = 17, water first.
    """

    images: np.ndarray
    masks: np.ndarray
    corners: np.ndarray
    class_names: tuple[str, ...]

    @property
    def pixel_counts(self) -> np.ndarray:
        """Int[K], pixels of each class."""
        return np.bincount(self.masks.ravel(), minlength=len(self.class_names))


def land_crops(
    part: Literal["train", "val", "test"],
    cfg: LandConfig | None = None,
    *,
    least_land: float = 0.3,
) -> Crops:
    """Cut the crops of one part of the spatial split that tiles have, too: ``val`` is its probe.

    Args:
        part: of the split.
        cfg: ``tile`` is the crops' size, ``stride``, ``block``, ``folds`` and ``fold`` are as for
            tiles; None = 64 pixels, half of it from one crop to the next.
        least_land: share of a crop's pixels that must be land.
    """
    cfg = LandConfig(tile=64) if cfg is None else cfg
    found = labelled_windows(cfg.tile, cfg.step, cfg.purity)
    is_land = found.counts[:, WATER] <= (1 - least_land) * cfg.tile**2
    corners = found.corners[is_land]
    corners = corners[parts_of(corners, cfg.tile, cfg) == _NUMBERS[part]]
    picture, cover = load_maps()
    return Crops(
        cut(picture, corners, cfg.tile), cut(cover, corners, cfg.tile), corners, COVER_NAMES
    )
