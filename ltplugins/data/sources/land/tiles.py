# SPDX-License-Identifier: MIT
"""Tiles for classification: square windows most of whose pixels are of one land class.

Legend: N tiles, C classes.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.data.sources.land.blocks import PARTS, TRAIN, parts_of
from ltplugins.data.sources.land.maps import COVER_NAMES, SOUTH_END, load_cover
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.data.sources.land.windows import count_classes, grid


class Tiles(NamedTuple):
    """Where tiles lie and what they are.

    Attributes:
        corners: Int[N 2], upper and left edge in pixels, from north to south.
        labels: Int[N], places in ``classes``.
        parts: Int[N], of the spatial split; NO_PART for a tile across a border.
        classes: C places in COVER_NAMES, ascending.
    """

    corners: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    classes: tuple[int, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return tuple(COVER_NAMES[c] for c in self.classes)

    def of(self, part: int) -> np.ndarray:
        """Places of the tiles of a part, ascending."""
        return np.flatnonzero(self.parts == part)


class Labelled(NamedTuple):
    """Windows with their land classes.

    Attributes:
        corners: Int[N 2], of all windows whose centre lies north of 60 degrees south.
        counts: Int[N 17], pixels of each class of the cover.
        classes: Int[N], the land class with most pixels.
        is_pure: Bool[N], whether that class has the share that ``purity`` asks for.
    """

    corners: np.ndarray
    counts: np.ndarray
    classes: np.ndarray
    is_pure: np.ndarray


@lru_cache(maxsize=4)
def labelled_windows(size: int, stride: int, purity: float) -> Labelled:
    """Give every window of the Earth its class."""
    cover = load_cover()[: SOUTH_END + size // 2]
    tops, lefts = grid(cover.shape, size, stride)
    tops = tops[tops + size / 2 < SOUTH_END]
    counts = count_classes(cover, size, stride, len(COVER_NAMES))[: len(tops)]
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
    counts = counts.reshape(len(corners), -1)
    land = counts[:, 1:]
    is_pure = land.max(1) >= purity * size**2
    return Labelled(corners, counts, land.argmax(1) + 1, is_pure)


@lru_cache(maxsize=8)
def land_tiles(cfg: LandConfig) -> Tiles:
    """Find the tiles of the classes that are frequent enough, with their parts.

    Raises:
        UserError: fewer than two classes are left, or a part has no tile of one of them.
    """
    found = labelled_windows(cfg.tile, cfg.step, cfg.purity)
    sizes = np.bincount(found.classes[found.is_pure], minlength=len(COVER_NAMES))
    classes = np.flatnonzero(sizes >= cfg.least)
    if len(classes) < 2:
        largest = ", ".join(f"{n:,}" for n in sorted(sizes[sizes > 0], reverse=True)[:3])
        raise UserError(
            f"data.least: expected a number that leaves two classes or more, got {cfg.least}. With "
            f"tile {cfg.tile}, stride {cfg.step} and purity {cfg.purity:g} the largest classes "
            f"have {largest or 'no'} tiles. Lower data.least or data.purity."
        )
    chosen = found.is_pure & np.isin(found.classes, classes)
    corners = found.corners[chosen]
    labels = np.searchsorted(classes, found.classes[chosen])
    tiles = Tiles(corners, labels, parts_of(corners, cfg.tile, cfg), tuple(classes.tolist()))
    _require_trainable(tiles, cfg)
    return tiles


def _require_trainable(tiles: Tiles, cfg: LandConfig) -> None:
    """Rare classes lie in few places: all of one may lie in the test part, or across borders."""
    names = dict(zip(PARTS, ("training", "probe", "test"), strict=True))
    for part, name in names.items():
        counts = np.bincount(tiles.labels[tiles.of(part)], minlength=len(tiles.classes))
        if not counts.sum() or (part == TRAIN and not counts.all()):
            lacking = tiles.class_names[int(counts.argmin())]
            raise UserError(
                f"data.least {cfg.least}, fold {cfg.fold} of {cfg.folds}, blocks of {cfg.block} "
                f"degrees: the {name} part has no tile of '{lacking}'. Raise data.least, or take "
                f"another data.fold or data.block."
            )
