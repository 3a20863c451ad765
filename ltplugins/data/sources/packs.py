# SPDX-License-Identifier: MIT
"""The embedded packs, licences beside them.

- Fashion-MNIST: 1,500 training and 100 probe images a class, 10,000 test images. Built by
  scripts/packs/fashion.py from Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017
  (https://arxiv.org/abs/1708.07747), MIT.
- Emoji: 3,511 grey images of 28 pixels, a pool of out-of-distribution images. Built by
  scripts/packs/emoji.py from npm's emoji-datasource-google 16.0.0 (Noto Emoji), Apache-2.0.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from ltplugins.core.arrays import open_archive
from ltplugins.core.errors import UserError
from ltplugins.core.files import sha256

PACK_PATH = Path(__file__).resolve().parents[1] / "packs" / "fashion_pack.npz"
PACK_SHA256 = "1a5878a47b124d2b0e2c0e1e346fb7de3713b529b12889b81f37df5c6f6d46df"
PACK_SPLITS = ("train", "probe", "test")
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


EMOJI_PATH = PACK_PATH.with_name("emoji_pack.npz")
EMOJI_SHA256 = "faa65e068aaeef047c685fae429f39c2f8a034954a1b13243f9d7fc70e1953c2"
EMOJI_CATEGORIES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
)


def load_emoji() -> dict[str, np.ndarray]:
    """Read ``images`` uint8 [N, 28, 28] and ``labels`` uint8 [N], positions in EMOJI_CATEGORIES.

    Raises:
        UserError: as :func:`load_pack`.
    """
    return load_pack(EMOJI_PATH, EMOJI_SHA256)


@lru_cache(maxsize=4)
def load_pack(path: Path = PACK_PATH, expected: str = PACK_SHA256) -> dict[str, np.ndarray]:
    """Read the arrays of a pack, once per process; they are read-only.

    Of the Fashion-MNIST pack: ``{train,probe,test}_{images,labels,source_index}``. Images are
    uint8 [N, 28, 28], sorted by class; ``source_index`` are positions in the official training
    (train, probe) or test file.

    Raises:
        UserError: the file is absent or its hash is not the expected one.
    """
    script = f"scripts/packs/{path.stem.removesuffix('_pack')}.py"
    require_whole(path, expected, script)
    with open_archive(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def require_whole(path: Path, expected: str, script: str) -> None:
    """Hold an embedded file to its hash.

    Args:
        path: of the file.
        expected: sha256.
        script: that builds it.

    Raises:
        UserError: the file is absent or its hash is not the expected one.
    """
    if not path.is_file():
        raise UserError(f"the embedded data pack is missing: {path}. {_way_out(script)}")
    found = sha256(path)
    if found != expected:
        raise UserError(
            f"the embedded data pack is damaged: {path}: expected sha256 {expected}, "
            f"found {found}. {_way_out(script)}"
        )


def _way_out(script: str) -> str:
    return f"Install ltplugins again, or rebuild the pack with {script} (its --help says how)."
