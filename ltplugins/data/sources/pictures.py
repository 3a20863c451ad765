# SPDX-License-Identifier: MIT
"""From a file to pixels, the one way for every engine and stage: uint8 [H, W, 3], as it is meant.

- A photograph that was taken sideways is turned by its EXIF (or XMP, or TIFF) orientation.
- Transparency is laid on white: what a file hides under it (noise, black, old content) is no image.
- 16-bit, 32-bit and float images are scaled by their range; PIL's ``convert`` would clip them.
- Pipes and devices are no images, and a file whose header asks for too many pixels is not decoded.

Legend: H height, W width.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from PIL import Image

# PIL's own: above it a picture is taken for a bomb, a small file that fills the memory.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_LIMIT = "data.max_pixels (of ltplugins features: --max-pixels)"
_BACKGROUND = (255, 255, 255, 255)
_ORIENTATION = 0x0112
_turn = threading.Lock()
_before: list[int | None] = []  # PIL's own, for each file that is open under another limit
_LOOKERS = 8  # threads: disks are slow, and decoders work without Python's lock
_TIFF_SIDES = (256, 257)  # ImageWidth, ImageLength, as the pixels lie
_SAFE = ("JPEG", "PNG", "TIFF", "WEBP")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

File = str | os.PathLike[str] | IO[bytes]


class Damage(Exception):
    """A file that gives no picture; its text is the reason, without the path."""


@contextmanager
def opened(file: File, limit: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a file as a picture; only its header is read.

    Whatever is raised while the picture is open counts as its damage: decoders raise nearly every
    class there is (``struct.error``, ``KeyError``, ``MemoryError``, ...).

    Args:
        file: a path, or a file that is open.
        limit: of H * W.

    Raises:
        Damage: it is no picture, no regular file, too large, or cannot be decoded.
    """
    try:
        with _limited_by_us(limit), _bytes_of(file) as content, Image.open(content) as image:
            pixels = image.width * image.height
            if pixels > limit:
                raise Damage(
                    f"{image.width} x {image.height} pixels, expected at most {limit:,}; set "
                    f"{_LIMIT} to {pixels} if the file is to be trusted"
                )
            if image.format == "EPS":
                raise Damage("EPS is a program to be run, expected a picture")
            yield image
    except Damage:
        raise
    except Image.DecompressionBombError as error:
        raise Damage(f"{error}; set {_LIMIT} if the file is to be trusted") from error
    except Image.UnidentifiedImageError as error:  # whose text is of the opened file
        raise Damage("UnidentifiedImageError: cannot identify image file") from error
    except Exception as error:
        raise Damage(f"{type(error).__name__}: {error}") from error


def first_damage(paths: Iterable[File], look: Callable[[File], None]) -> tuple[File, Damage] | None:
    """Look at many files at once; give the first, in their order, that is damaged.

    Args:
        paths: of the files.
        look: raises :class:`Damage`.
    """

    def damage_of(path: File) -> tuple[File, Damage] | None:
        try:
            look(path)
        except Damage as damage:
            return path, damage
        return None

    with ThreadPoolExecutor(_LOOKERS) as pool:
        found = (damage for damage in pool.map(damage_of, paths) if damage)
        first = next(found, None)
        pool.shutdown(cancel_futures=True)
    return first


@contextmanager
def _bytes_of(file: File) -> Iterator[IO[bytes]]:
    if not isinstance(file, str | os.PathLike):
        yield file
        return
    require_regular(file)
    # Not by PIL: it maps what has a name, and a mapped TIFF of orientation 5 to 8 gets wrong sides.
    with open(file, "rb") as content:
        yield content


def require_regular(file: str | os.PathLike[str]) -> None:
    """Refuse what is no file: to open a pipe waits for who writes into it.

    Raises:
        Damage: a pipe, a socket, a device, a folder.
        OSError: it is not there.
    """
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise Damage("no regular file, expected a picture")


@contextmanager
def _limited_by_us(limit: int) -> Iterator[None]:
    """PIL knows one limit for a process, whatever its threads; another one is ours to hold."""
    if limit == MAX_PIXELS:
        yield
        return
    with _turn:
        _before.append(_before[0] if _before else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _turn:
            own = _before.pop()
            if not _before:
                Image.MAX_IMAGE_PIXELS = own


def decode(image: Image.Image) -> np.ndarray:
    """Give the pixels of an opened file, uint8 [H, W, 3].

    Raises:
        Exception: of any class, where it is damaged or has numbers whose range nobody can know;
            :func:`opened` makes damage of it.
    """
    image.load()  # a TIFF file turns itself by now
    turn, deep = orientation(image), image.format in ("PNG", "PPM")
    if image.mode.startswith("I"):
        image = Image.fromarray(_from_integers(np.asarray(image), deep))
    elif image.mode == "F":
        image = Image.fromarray(_from_floats(np.asarray(image)))
    if turn > 1:
        image = image.transpose(_TURNS[turn])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), image)
    return np.asarray(image.convert("RGB"))


def is_plain(image: Image.Image) -> bool:
    """Whether other decoders give the same: 8 bits, upright, opaque. Only its header is read."""
    if image.mode not in ("L", "RGB") or "transparency" in image.info:
        return False
    return image.format in _SAFE and _lies_as(image) == image.mode and orientation(image) == 1


def orientation(image: Image.Image) -> int:
    """EXIF's number, 1 for upright, also where there is none or it cannot be read."""
    try:
        number = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged header; its pixels may be whole
        return 1
    return number if number in range(1, 9) else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height that the pixels will have, from the header alone."""
    sides: tuple[int, int] = image.size
    if image.format == "TIFF":  # PIL exchanges the sides of these itself, in its newer versions
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        sides = (tags[_TIFF_SIDES[0]], tags[_TIFF_SIDES[1]])
    return sides[::-1] if orientation(image) >= 5 else sides


def _lies_as(image: Image.Image) -> str:
    """How the file has its pixels, in PIL's words: "RGB", "RGB;16B" (16 bits), "L;I" (inverted)."""
    tiles: Any = getattr(image, "tile", None)
    if not tiles:
        return ""
    how = tiles[0][3]
    return str(how if isinstance(how, str) else how[0])


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed and stored, whatever encoding its bytes have."""
    return os.fsencode(path).decode("utf-8", "replace")


def _from_integers(pixels: np.ndarray, deep: bool = False) -> np.ndarray:
    """From 16 bits to 8; a 32-bit file is taken to hold 8 or 16 of them.

    Args:
        pixels: [H, W].
        deep: the file has 16 bits, whatever PIL keeps them in.

    >>> _from_integers(np.array([[0, 257, 65535]], np.int32)).tolist()
    [[0, 1, 255]]
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise Damage(f"32-bit integers from {low} to {high}, expected 0 to 65535")
    if pixels.dtype == np.int32 and high <= 255 and not deep:
        return pixels.astype(np.uint8)
    return np.round(pixels / 257).astype(np.uint8)


def _from_floats(pixels: np.ndarray) -> np.ndarray:
    """From floats in [0, 1], or in [0, 255], to 8 bits.

    >>> _from_floats(np.array([[0, 0.2, 1]], np.float32)).tolist()
    [[0, 51, 255]]
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):
        raise Damage(f"floats from {low:g} to {high:g}, expected 0 to 1 or 0 to 255")
    return np.round(pixels * (255 if high <= 1 else 1)).astype(np.uint8)
