# SPDX-License-Identifier: MIT
"""From an opened file to pixels, the one way for every engine: uint8 [H, W, 3], as it is meant.

- A photograph that was taken sideways is turned by its EXIF orientation.
- Transparency is laid on white: what a file hides under it (noise, black, old content) is no image.
- 16-bit, 32-bit and float images are scaled by their range; PIL's ``convert`` would clip them.

Legend: H height, W width.
"""

import os
import struct

import numpy as np
from PIL import Image, ImageOps

# What PIL raises on a damaged file: OSError (truncated, unidentified), SyntaxError (broken PNG),
# ValueError and DecompressionBombError (sizes that cannot be right).
DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_BACKGROUND = (255, 255, 255, 255)
_ORIENTATION = 0x0112


def decode(image: Image.Image) -> np.ndarray:
    """Give the pixels of an opened file, uint8 [H, W, 3].

    Raises:
        OSError, SyntaxError, ValueError, DecompressionBombError: it is damaged, or has numbers
            whose range nobody can know.
    """
    if image.mode.startswith("I"):
        image = Image.fromarray(_from_integers(np.asarray(image)))
    elif image.mode == "F":
        image = Image.fromarray(_from_floats(np.asarray(image)))
    if orientation(image) > 1:
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), image)
    return np.asarray(image.convert("RGB"))


def is_plain(image: Image.Image) -> bool:
    """Whether other decoders give the same: 8 bits, upright, opaque. Only its header is read."""
    if image.mode not in ("L", "RGB") or "transparency" in image.info:
        return False
    return "exif" not in image.info or orientation(image) == 1


def orientation(image: Image.Image) -> int:
    """EXIF's number, 1 for upright, also where there is none or it cannot be read."""
    try:
        number = image.getexif().get(_ORIENTATION, 1)
    except (*DAMAGE, struct.error, KeyError, TypeError):
        return 1
    return number if number in range(1, 9) else 1


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed and stored, whatever encoding its bytes have."""
    return os.fsencode(path).decode("utf-8", "replace")


def _from_integers(pixels: np.ndarray) -> np.ndarray:
    """From 16 bits to 8; a 32-bit file is taken to hold 8 or 16 of them.

    >>> _from_integers(np.array([[0, 257, 65535]], np.int32)).tolist()
    [[0, 1, 255]]
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise ValueError(f"32-bit integers from {low} to {high}, expected 0 to 65535")
    if pixels.dtype == np.int32 and high <= 255:
        return pixels.astype(np.uint8)
    return np.round(pixels / 257).astype(np.uint8)


def _from_floats(pixels: np.ndarray) -> np.ndarray:
    """From floats in [0, 1], or in [0, 255], to 8 bits.

    >>> _from_floats(np.array([[0, 0.2, 1]], np.float32)).tolist()
    [[0, 51, 255]]
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):
        raise ValueError(f"floats from {low:g} to {high:g}, expected 0 to 1 or 0 to 255")
    return np.round(pixels * (255 if high <= 1 else 1)).astype(np.uint8)
