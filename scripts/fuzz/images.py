# SPDX-License-Identifier: MIT
"""Image files: by PIL, through which every engine and stage looks first, and by DALI."""

import importlib.util
import io
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.augment.deterministic import EvalTransform
from ltplugins.data.sources.base import CorruptImage
from ltplugins.data.sources.files import flat_folder
from ltplugins.data.sources.pictures import Damage, is_plain, opened
from ltplugins.downstream.segmentation.pairs import FilePairs
from scripts.fuzz.damage import bytes_near
from scripts.fuzz.judge import Target

LIMIT = 100_000  # pixels: a bomb is refused by its size, and here by a small one
_ENDINGS = (".png", ".jpg", ".tif", ".webp", ".bmp", ".ppm", ".pgm")
_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touch owned) system\n"
_WAYS = ("load", "transform", "mask", "dali")


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@cache
def samples() -> tuple[bytes, ...]:
    """Sound files of many kinds, each of a few pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3)).astype(np.uint8)
    rgb = Image.fromarray(pixels)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    floats = Image.fromarray(pixels[..., 0].astype(np.float32) / 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    modes = [rgb.convert(mode) for mode in ("1", "L", "LA", "P", "RGBA")]
    return (
        *(_encoded(image, "PNG") for image in (rgb, deep, *modes)),
        _encoded(modes[3], "PNG", transparency=3),
        _encoded(rgb, "PNG", exif=exif),
        _encoded(rgb, "JPEG"),
        _encoded(rgb, "JPEG", progressive=True, exif=exif),
        _encoded(rgb.convert("CMYK"), "JPEG"),
        *(_encoded(image, "TIFF") for image in (rgb, deep, floats, modes[0])),
        _encoded(rgb, "TIFF", compression="tiff_lzw", exif=exif),
        _encoded(rgb, "TIFF", compression="jpeg"),
        _encoded(rgb, "WEBP"),
        _encoded(modes[4], "WEBP", lossless=True),
        *(_encoded(rgb, form) for form in ("GIF", "BMP", "PPM", "ICO", "TGA", "PCX", "SGI", "DDS")),
        _encoded(rgb, "JPEG2000"),
        b"P5 12 9 65535\n" + pixels.tobytes()[:216],
        _EPS,
    )


@st.composite
def pictures(draw: DrawFn) -> tuple[str, str, bytes]:
    """Who reads it, the ending of its name, its bytes."""
    content = draw(bytes_near(samples()))
    return draw(st.sampled_from(_WAYS)), draw(st.sampled_from(_ENDINGS)), content


def use_picture(given: tuple[str, str, bytes]) -> None:
    """Decode a file as one of the readers does.

    Raises:
        UserError: it is damaged, or another one's.
    """
    way, ending, content = given
    path = Path(f"x{ending}")
    path.write_bytes(content)
    if way == "load":
        source = flat_folder(Path.cwd())
        source.max_pixels = LIMIT
        try:
            image = source.load(0)
        except CorruptImage as error:
            raise UserError(f"{error.path} ({error.reason})") from None
        assert image.dtype == np.uint8 and image.shape[2:] == (3,), image.shape
        assert image.shape[0] * image.shape[1] <= LIMIT, image.shape
    elif way == "transform":
        assert EvalTransform(16, (0.5,) * 3, (0.5,) * 3)(path).shape == (3, 16, 16)
    elif way == "mask":
        table = np.zeros(256, np.uint8)
        pairs = FilePairs([path], [path], table, np.ones(256, bool), LIMIT)
        pairs.require_sizes()
        pairs.pair(0)
    else:
        _by_dali(content)


def _by_dali(content: bytes) -> None:
    """As the engine does: PIL reads the head, and DALI what is plain by it."""
    try:
        with opened(io.BytesIO(content), LIMIT) as image:
            plain = is_plain(image)
    except Damage as error:
        raise UserError(str(error)) from None
    if plain and importlib.util.find_spec("nvidia.dali"):
        from ltplugins.data.engines.dali.damage import _decodes

        if not _decodes(np.frombuffer(content, np.uint8)):
            raise UserError("DALI cannot decode it")


IMAGES = Target("images", pictures(), use_picture)
