# SPDX-License-Identifier: MIT
"""``land_pool``: a pool of out-of-distribution images of the tiles' own picture, for ``data.ood``.

Windows of the training part that no class of the tiles fills: coasts, mixtures, and classes that
are too rare to be learned. They are near: the same picture, partly the same pixels as tiles beside
them, never a pixel of the probe or the test part. docs/land.md says how near, in numbers.
"""

import numpy as np

from ltplugins.data.sources.land.blocks import TRAIN, parts_of
from ltplugins.data.sources.land.maps import WATER
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.data.sources.land.tiles import labelled_windows, land_tiles

_LEAST_LAND = 0.3


def land_pool(cfg: LandConfig) -> np.ndarray:
    """The corners of the pool's windows, Int[M 2]; they have the tiles' size and stride.

    Raises:
        UserError: see :func:`land_tiles`.
    """
    found = labelled_windows(cfg.tile, cfg.step, cfg.purity)
    is_tile = found.is_pure & np.isin(found.classes, land_tiles(cfg).classes)
    is_land = found.counts[:, WATER] <= (1 - _LEAST_LAND) * cfg.tile**2
    corners = found.corners[is_land & ~is_tile]
    return corners[parts_of(corners, cfg.tile, cfg) == TRAIN]
