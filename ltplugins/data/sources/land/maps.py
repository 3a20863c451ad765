# SPDX-License-Identifier: MIT
"""The two maps of land_pack: colours and land cover of the same places, north up.

The picture is NASA's Blue Marble Next Generation (Reto Stöckli, NASA Earth Observatory); the cover
is MCD12C1 of 2019, classes of the IGBP (Friedl, Sulla-Menashe, NASA LP DAAC,
https://doi.org/10.5067/MODIS/MCD12C1.006). Both are equirectangular, 15 pixels a degree. Built by
scripts/packs/land.py.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.data.sources.packs import PACK_PATH, require_whole
from ltplugins.data.sources.pictures import Damage, opened

PICTURE_PATH = PACK_PATH.with_name("land_picture.jpg")
PICTURE_SHA256 = "10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8"
COVER_PATH = PACK_PATH.with_name("land_cover.png")
COVER_SHA256 = "03a925ecab874fd92475f081c7e96694eec6b2b663e9093542432233a9195827"
_SCRIPT = "scripts/packs/land.py"

HEIGHT, WIDTH = 2700, 5400
# South of 60 degrees there is nothing but ice.
SOUTH_END = 2250
WATER = 0
COVER_NAMES = (
    "water",
    "evergreen needleleaf forest",
    "evergreen broadleaf forest",
    "deciduous needleleaf forest",
    "deciduous broadleaf forest",
    "mixed forest",
    "closed shrubland",
    "open shrubland",
    "woody savanna",
    "savanna",
    "grassland",
    "permanent wetland",
    "cropland",
    "urban",
    "cropland mosaic",
    "snow and ice",
    "barren",
)


class Maps(NamedTuple):
    """``picture`` uint8 [2700, 5400, 3]; ``cover`` uint8 [2700, 5400], places in COVER_NAMES."""

    picture: np.ndarray
    cover: np.ndarray


@lru_cache(maxsize=1)
def load_maps() -> Maps:
    """Read both maps, once per process; they are read-only.

    Raises:
        UserError: a file is absent or its hash is not the expected one.
    """
    require_whole(PICTURE_PATH, PICTURE_SHA256, _SCRIPT)
    return Maps(_decode(PICTURE_PATH), load_cover())


@lru_cache(maxsize=1)
def load_cover() -> np.ndarray:
    """Read the land cover alone, uint8 [2700, 5400]; see :func:`load_maps`."""
    require_whole(COVER_PATH, COVER_SHA256, _SCRIPT)
    return _decode(COVER_PATH)


def _decode(path: Path) -> np.ndarray:
    try:
        with opened(path) as image:
            pixels = np.array(image)
    except Damage as error:
        raise UserError(f"{path}: cannot be decoded: {error}. Install Pillow again.") from None
    pixels.setflags(write=False)
    return pixels
