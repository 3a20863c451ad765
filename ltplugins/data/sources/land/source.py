# SPDX-License-Identifier: MIT
"""Tiles and the pool as sources, in memory, as every engine takes them.

Legend: N images, S their size.
"""

import dataclasses
from typing import Literal

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.data.sources.base import ArraySource, number_names
from ltplugins.data.sources.land.blocks import PROBE, TEST, TRAIN, blocks_of
from ltplugins.data.sources.land.maps import PICTURE_SHA256, load_maps
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.data.sources.land.pool import land_pool
from ltplugins.data.sources.land.tiles import land_tiles
from ltplugins.data.sources.land.windows import cut
from ltplugins.data.sources.records import RECORDS, SMALL_IMAGE, DataRecord

_NUMBERS = {"train": TRAIN, "probe": PROBE, "test": TEST}


def tile_source(cfg: LandConfig, part: Literal["train", "probe", "test"]) -> ArraySource:
    """The tiles of one part of the spatial split, with labels.

    Raises:
        UserError: see :func:`land_tiles`.
    """
    tiles = land_tiles(cfg)
    chosen = tiles.of(_NUMBERS[part])
    record = _record("land_pack", cfg, len(tiles.classes))
    corners = tiles.corners[chosen]
    source = _source(corners, tiles.labels[chosen], tiles.class_names, record)
    source.places = blocks_of(corners, cfg.tile, cfg.block)
    return source


def pool_source(cfg: LandConfig, part: str) -> ArraySource:
    """The pool; ``train`` is its only part, and it has no labels.

    Raises:
        UserError: another part is asked for, or nothing is left in the pool.
    """
    if part != "train":
        raise UserError(
            f"land_pool has no {part} part: it is a pool for data.ood, not a set to evaluate on."
        )
    corners = land_pool(cfg)
    if not len(corners):
        raise UserError(
            f"land_pool: no window of {cfg.tile} pixels is left that no class fills. Raise "
            f"data.purity or data.least, or name another pool in data.ood."
        )
    labels = np.full(len(corners), -1)
    return _source(corners, labels, number_names(1), _record("land_pool", cfg, 1))


def _record(name: str, cfg: LandConfig, num_classes: int) -> DataRecord:
    return dataclasses.replace(
        RECORDS[name],
        num_classes=num_classes,
        image_size=cfg.tile,
        small_stem=cfg.tile <= SMALL_IMAGE,
    )


def _source(
    corners: np.ndarray, labels: np.ndarray, names: tuple[str, ...], record: DataRecord
) -> ArraySource:
    size = record.image_size
    source = ArraySource(cut(load_maps().picture, corners, size), labels, names, record)
    # Decoders of JPEG differ in the last bit: a tile is known by the file and its place in it.
    file = np.frombuffer(bytes.fromhex(PICTURE_SHA256), dtype="<i8")
    same = np.broadcast_to([*file, size], (len(corners), len(file) + 1))
    source.stand_ins = np.concatenate([same, corners], axis=1)
    return source
