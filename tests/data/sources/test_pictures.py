# SPDX-License-Identifier: MIT
"""What a file shows is what is trained on: depth, transparency, orientation, in every engine."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.engines.build import build_loader
from ltplugins.data.samplers.base import Shard
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.base import CorruptImage, FileSource
from ltplugins.data.sources.build import build_source
from ltplugins.data.sources.files import image_folder
from ltplugins.data.sources.pictures import (
    MAX_PIXELS,
    Damage,
    decode,
    is_plain,
    opened,
    shown,
    upright_size,
)
from ltplugins.data.training_set import TrainingSet

RAMP = np.tile(np.linspace(0, 1, 32), (32, 1))
DEEP = {
    "16 bit": (RAMP * 65535).astype(np.uint16),
    "32 bit": (RAMP * 65535).astype(np.int32),
    "float to 1": RAMP.astype(np.float32),
    "float to 255": (RAMP * 255).astype(np.float32),
}


@pytest.mark.parametrize("kind", DEEP)
def test_a_ramp_of_any_depth_is_a_ramp(kind: str, tmp_path: Path) -> None:
    Image.fromarray(DEEP[kind]).save(tmp_path / "x.tiff")
    with Image.open(tmp_path / "x.tiff") as image:
        assert not is_plain(image)
        pixels = decode(image)
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels[0, :, 0] - RAMP[0] * 255).max() <= 1


@pytest.mark.parametrize("values", [[-1.0, 2.0], [0.0, 300.0], [0.0, np.nan]])
def test_floats_without_a_known_range_are_damage(values: list[float], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.array([values] * 2, dtype=np.float32)).save(tmp_path / "a/x.tiff")
    with pytest.raises(CorruptImage) as error:
        image_folder(tmp_path).load(0)
    assert "expected 0 to 1 or 0 to 255" in error.value.reason


def transparent(path: Path, palette: bool = False) -> None:
    """Noise that nobody sees around a red square."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    pixels[8:24, 8:24] = [200, 30, 30, 255]
    image = Image.fromarray(pixels)
    (image.quantize(16) if palette else image).save(path)


@pytest.mark.parametrize("palette", [False, True])
def test_transparency_is_laid_on_white(palette: bool, tmp_path: Path) -> None:
    transparent(tmp_path / "x.png", palette)
    with Image.open(tmp_path / "x.png") as image:
        assert not is_plain(image)
        pixels = decode(image)
    assert (pixels[:8] == 255).all() and (pixels[24:] == 255).all()
    assert np.abs(pixels[16, 16].astype(int) - [200, 30, 30]).max() <= 8


AS_TAKEN = (  # of EXIF's numbers 1 to 8: rows [H, W] that the tag makes upright
    lambda x: x,
    lambda x: x[:, ::-1],
    lambda x: x[::-1, ::-1],
    lambda x: x[::-1],
    lambda x: x.swapaxes(0, 1),
    lambda x: np.rot90(x, 1),
    lambda x: x[::-1, ::-1].swapaxes(0, 1),
    lambda x: np.rot90(x, -1),
)


def sideways(path: Path, orientation: int, deep: bool = False) -> np.ndarray:
    """A file whose upright form, uint8 [8, 16, 3], is returned; its bytes lie as the camera did."""
    upright = np.zeros((8, 16, 3), dtype=np.uint8)
    upright[:4, :8] = 250
    upright[6:, 14:] = 120
    pixels = upright[..., 0].astype(np.uint16) * 257 if deep else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    taken = np.ascontiguousarray(AS_TAKEN[orientation - 1](pixels))
    Image.fromarray(taken).save(path, exif=exif)
    return upright


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(
    orientation: int, deep: bool, ending: str, tmp_path: Path
) -> None:
    """Once, whether PIL turns such files itself or not, and whatever the pixels are kept in."""
    upright = sideways(tmp_path / f"x.{ending}", orientation, deep)
    with opened(tmp_path / f"x.{ending}") as image:
        assert is_plain(image) == (orientation == 1 and not deep)
        assert upright_size(image) == (16, 8)
        assert np.array_equal(decode(image), upright)


@pytest.mark.parametrize("ending", ["png", "pgm"])
def test_a_dark_picture_of_16_bits_stays_dark(ending: str, tmp_path: Path) -> None:
    """PIL keeps some of these as 32-bit integers, which alone could be 8 bits too."""
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / f"x.{ending}")
    with opened(tmp_path / f"x.{ending}") as image:
        assert decode(image).max() == 1


def test_deep_colours_and_inverted_greys_are_left_to_pil(tmp_path: Path) -> None:
    """Other decoders scale 16 bits by another number, and read what TIFF and BMP say otherwise."""
    Image.new("L", (4, 4)).save(tmp_path / "x.bmp")
    Image.new("L", (4, 4)).save(tmp_path / "x.tiff", tiffinfo={262: 0})
    for name in ("x.bmp", "x.tiff"):
        with opened(tmp_path / name) as image:
            assert not is_plain(image), name


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    Image.new("1", (60, 50)).save(tmp_path / "a/x.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it is decoded"))
    cfg = DataConfig(train_path=str(tmp_path), max_pixels=2999)
    source = build_source(cfg).subset(np.array([0]))
    with pytest.raises(CorruptImage, match=r"60 x 50 pixels, expected at most 2,999; .*max_pixels"):
        source.load(0)


def test_the_limit_can_be_raised_above_pils(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    Image.new("1", (60, 50)).save(tmp_path / "a/x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(CorruptImage, match=r"DOS attack\.; set data.max_pixels "):
        image_folder(tmp_path).load(0)
    cfg = DataConfig(train_path=str(tmp_path), max_pixels=MAX_PIXELS + 1)
    assert build_source(cfg).load(0).shape == (50, 60, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), RuntimeError("y"), EOFError("z")])
def test_whatever_a_decoder_raises_is_damage(error: Exception, tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(Damage, match=type(error).__name__), opened(tmp_path / "x.png"):
        raise error


def test_no_program_is_run_for_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(Damage, match="EPS is a program"), opened(tmp_path / "x.png"):
        pass


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_cut_and_flip_of_a_file_is_a_picture_or_damage() -> None:
    """No other error comes out, whatever the bytes are; where they are, the seed says."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    for form in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM", "GIF"):
        file = BytesIO()
        Image.fromarray(pixels).save(file, form)
        for _ in range(60):
            data = np.frombuffer(file.getvalue(), np.uint8).copy()
            places = rng.integers(0, len(data), rng.integers(1, 9))
            data[places] = rng.integers(0, 256, len(places))
            data = data[: rng.integers(len(data) // 2, len(data) + 1)]
            try:
                with opened(BytesIO(data.tobytes()), limit=10_000) as image:
                    assert decode(image).shape[2] == 3
            except Damage as damage:
                assert str(damage)


def test_an_ordinary_picture_is_what_pil_gives(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert is_plain(image) and np.array_equal(decode(image), pixels)


@pytest.mark.parametrize(
    "engine", ["workers", "batched", pytest.param("dali", marks=pytest.mark.dali)]
)
def test_every_engine_shows_them_alike(engine: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    transparent(tmp_path / "a/0.png")
    sideways(tmp_path / "a/1.png", 6)
    Image.fromarray(DEEP["16 bit"]).save(tmp_path / "a/2.png")
    sideways(tmp_path / "a/3.tiff", 5)
    sideways(tmp_path / "a/4.png", 8, deep=True)
    Image.fromarray(255 - sideways(tmp_path / "a/5.jpg", 2)).save(tmp_path / "a/6.bmp")
    if engine == "dali":
        pytest.importorskip("nvidia.dali")
    cfg = DataConfig(train_path=str(tmp_path), engine=engine, num_workers=0)  # type: ignore[arg-type]
    source = image_folder(tmp_path)
    blocks = parse_augmentations(
        [{"crop_size": 8, "num_crops": 1, "mean": [0] * 3, "std": [1] * 3}]
    )
    data = TrainingSet(cfg, blocks, len(source), source=source)
    ((indexes, views, _),) = list(build_loader(data, Shard(seed=0), torch.device("cpu")))
    for index, view in zip(indexes.tolist(), views[0], strict=True):
        image = Image.fromarray(source.load(index))
        short = min(image.size)
        size = tuple(8 * side // short for side in image.size)
        small = image.resize(size, Image.Resampling.BICUBIC)
        left = (size[0] - 8) // 2
        expected = np.asarray(small.crop((left, 0, left + 8, 8))) / 255
        assert np.abs(view.permute(1, 2, 0).numpy() - expected).mean() < 0.03, index


@pytest.mark.parametrize(
    "engine", ["workers", "batched", pytest.param("dali", marks=pytest.mark.dali)]
)
def test_every_engine_refuses_what_is_no_image_of_ours(engine: str, tmp_path: Path) -> None:
    """A pipe, which is not waited for, and a picture of more pixels than are allowed."""
    if engine == "dali":
        pytest.importorskip("nvidia.dali")
    (tmp_path / "a").mkdir()
    for i in range(4):
        Image.new("RGB", (16, 16)).save(tmp_path / f"a/{i}.png")
    Image.new("RGB", (16, 17)).save(tmp_path / "a/large.png")
    cfg = DataConfig(
        train_path=str(tmp_path),
        engine=engine,
        num_workers=0,
        max_pixels=256,
        on_corrupt="skip",  # type: ignore[arg-type]
    )
    source = build_source(cfg)
    (tmp_path / "a/2.png").unlink()
    os.mkfifo(tmp_path / "a/2.png")  # it was a file when the folder was read
    blocks = parse_augmentations([{"crop_size": 8, "num_crops": 1}])
    data = TrainingSet(cfg, blocks, 5, source=source)
    loader = build_loader(data, Shard(seed=0), torch.device("cpu"))
    ((indexes, _, _),) = list(loader)
    assert set(indexes.tolist()) <= {0, 1, 3}
    assert set(loader.corrupt) == {str(tmp_path / "a/2.png"), str(tmp_path / "a/large.png")}


def test_a_path_of_any_encoding_can_be_shown(tmp_path: Path) -> None:
    assert shown("caf\udce9.png") == "caf\N{REPLACEMENT CHARACTER}.png"
    error = CorruptImage("caf\udce9.png", "gone")
    assert error.path.encode() and isinstance(FileSource, type)
