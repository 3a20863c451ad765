# SPDX-License-Identifier: MIT
"""What a file shows is what is trained on: depth, transparency, orientation, in every engine."""

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
from ltplugins.data.sources.files import image_folder
from ltplugins.data.sources.pictures import decode, is_plain, shown
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


def sideways(path: Path, orientation: int) -> np.ndarray:
    """A file whose upright form, uint8 [8, 16, 3], is returned; its bytes lie as the camera did."""
    upright = np.zeros((8, 16, 3), dtype=np.uint8)
    upright[:4, :8] = 250
    turns = {1: 0, 3: 2, 6: 1, 8: -1}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(upright, turns).copy()).save(path, exif=exif)
    return upright


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_is_turned_upright(orientation: int, tmp_path: Path) -> None:
    upright = sideways(tmp_path / "x.png", orientation)
    with Image.open(tmp_path / "x.png") as image:
        assert is_plain(image) == (orientation == 1)
        assert np.array_equal(decode(image), upright)


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
    if engine == "dali":
        pytest.importorskip("nvidia.dali")
    cfg = DataConfig(train_path=str(tmp_path), engine=engine, num_workers=0)  # type: ignore[arg-type]
    source = image_folder(tmp_path)
    blocks = parse_augmentations(
        [{"crop_size": 8, "num_crops": 1, "mean": [0] * 3, "std": [1] * 3}]
    )
    data = TrainingSet(cfg, blocks, 3, source=source)
    ((indexes, views, _),) = list(build_loader(data, Shard(seed=0), torch.device("cpu")))
    for index, view in zip(indexes.tolist(), views[0], strict=True):
        image = Image.fromarray(source.load(index))
        short = min(image.size)
        size = tuple(8 * side // short for side in image.size)
        small = image.resize(size, Image.Resampling.BICUBIC)
        left = (size[0] - 8) // 2
        expected = np.asarray(small.crop((left, 0, left + 8, 8))) / 255
        assert np.abs(view.permute(1, 2, 0).numpy() - expected).mean() < 0.03, index


def test_a_path_of_any_encoding_can_be_shown(tmp_path: Path) -> None:
    assert shown("caf\udce9.png") == "caf\N{REPLACEMENT CHARACTER}.png"
    error = CorruptImage("caf\udce9.png", "gone")
    assert error.path.encode() and isinstance(FileSource, type)
