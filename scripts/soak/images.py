# SPDX-License-Identifier: MIT
"""Unusual pictures, damaged ones, and what is none: every engine takes or refuses them alike."""

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.soak.children import Ended, run
from scripts.soak.ledger import EQUAL, LOST, REFUSED, Case, Ledger
from scripts.soak.tasks import Bench
from tests.kit.tiny import tiny_config, write_folder

IMAGES = "images"
_SIDE = 32
_RAMP = np.linspace(0, 1, _SIDE)[None] * np.ones((_SIDE, 1))  # dark at the left
_NOISE = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
Writer = Callable[[Path], Any]


def _of(pixels: np.ndarray, name: str, **how: Any) -> tuple[str, Writer]:
    return name, lambda path: Image.fromarray(pixels).save(path, **how)


def _mode(mode: str, name: str) -> tuple[str, Writer]:
    return name, lambda path: Image.fromarray(_NOISE).convert(mode).save(path)


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.repeat((255 * _RAMP[..., None]).astype(np.uint8), 3, axis=2)
    Image.fromarray(grey).save(path, exif=exif.tobytes(), quality=95)


def _clear(path: Path) -> None:
    """A square of red under which all is transparent and black."""
    pixels = np.zeros((_SIDE, _SIDE, 4), np.uint8)
    pixels[:8, :8] = (255, 0, 0, 255)
    Image.fromarray(pixels).quantize(4).save(path)


def _bytes(name: str, change: Callable[[bytes], bytes]) -> tuple[str, Writer]:
    def write(path: Path) -> None:
        Image.fromarray(_NOISE).save(path)
        path.write_bytes(change(path.read_bytes()))

    return name, write


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(b ^ 255 for b in data[middle : middle + 8]) + data[middle + 8 :]


def _bomb(path: Path) -> None:
    """A few bytes whose header asks for 3.6 thousand million pixels."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = b"IHDR" + head
    chunk = struct.pack(">I", len(head)) + body + struct.pack(">I", zlib.crc32(body))
    data = b"IDAT" + zlib.compress(b"")
    tail = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + tail)


# What is to be taken, with the mean that its pixels have; None where nobody needs to know.
PICTURES: dict[str, tuple[tuple[str, Writer], float | None]] = {
    "16-bit grey PNG": (_of((65535 * _RAMP).astype(np.uint16), "x.png"), 127.5),
    "32-bit TIFF": (_of((65535 * _RAMP).astype(np.int32), "x.tif"), 127.5),
    "float TIFF": (_of(_RAMP.astype(np.float32), "x.tif"), 127.5),
    "JPEG, EXIF 6": (("x.jpg", _turned), 127.5),
    "palette, transparent": (("x.png", _clear), 255 * (1 - 2 / 3 / 16)),
    "1-bit PNG": (_mode("1", "x.png"), None),
    "grey with alpha": (_mode("LA", "x.png"), None),
    "CMYK JPEG": (_mode("CMYK", "x.jpg"), None),
}
# What is to be refused, or left out where that is allowed.
DAMAGED: dict[str, tuple[str, Writer]] = {
    "cut JPEG": _bytes("x.jpg", lambda data: data[: len(data) // 2]),
    "cut PNG": _bytes("x.png", lambda data: data[: len(data) // 2]),
    "PNG with flipped bytes": _bytes("x.png", _flip),
    "empty file": ("x.png", lambda path: path.write_bytes(b"")),
    "text": ("x.png", lambda path: path.write_text("no picture\n")),
    "garbage after a JPEG's head": _bytes("x.jpg", lambda data: data[:20] + bytes(400)),
    "decompression bomb": ("x.png", _bomb),
    "32-bit TIFF out of range": _of(np.full((_SIDE, _SIDE), -9, np.int32), "x.tif"),
    "float TIFF with NaN": _of(np.full((_SIDE, _SIDE), np.nan, np.float32), "x.tif"),
    "link to nothing": ("x.png", lambda path: path.symlink_to("gone.png")),
}
# What is never opened, under each policy.
NO_FILES: dict[str, tuple[str, Writer]] = {
    "pipe": ("x.png", os.mkfifo),
    "link to a device": ("x.png", lambda path: path.symlink_to("/dev/zero")),
}
_LEFT_OUT = "files left out: 1 pipes or devices"


def images(bench: Bench, ledger: Ledger, engines: Sequence[str]) -> Iterator[Case]:
    """Every file on every engine, under both policies for damaged ones."""
    for name, ((file, write), mean) in PICTURES.items():
        for engine in engines:
            if not ledger.has(IMAGES, name, engine):
                yield _picture(bench, name, engine, _folder(bench, name, file, write), mean)
    for name, (file, write) in {**DAMAGED, **NO_FILES}.items():
        for engine in engines:
            for policy in ("fail", "skip"):
                if not ledger.has(IMAGES, name, f"{engine} {policy}"):
                    root = _folder(bench, name, file, write)
                    yield _damaged(bench, name, engine, policy, root / f"class1/{file}")


def _folder(bench: Bench, name: str, file: str, write: Writer) -> Path:
    """A folder of pictures with this one in it."""
    root = bench.folder / "images" / name.replace(" ", "-").replace(",", "")
    if not root.exists():
        write_folder(root, (6, 4, 4), size=_SIDE)
        write(root / "class1" / file)
    return root


def _train(bench: Bench, root: Path, engine: str, policy: str) -> Ended:
    from ltplugins.stages.pretrain import pretrain

    out = bench.folder / "images/run"
    log = bench.folder / "images/run.log"
    data = {"format": "image_folder", "train_path": str(root), "val_path": None}
    data |= {"engine": engine, "num_workers": int(engine == "workers"), "on_corrupt": policy}
    more = {"dali": {"device": "cpu"}} if engine == "dali" else {}
    cfg = tiny_config(bench.folder / "images", "simclr", max_epochs=2, output_dir=str(out))
    cfg.data, cfg.overwrite = {"dataset": "custom", **data}, True
    cfg.update(more)
    cfg.optimizer.batch_size = 7
    return run(lambda: pretrain(cfg), log)


def _picture(bench: Bench, name: str, engine: str, root: Path, mean: float | None) -> Case:
    from ltplugins.data.sources.files import image_folder

    ended = _train(bench, root, engine, "fail")
    seen = bench.tell(ended)
    if ended.code != 0:
        return Case(IMAGES, name, engine, LOST, seen, f"exit {ended.code}: {ended.said[-200:]}")
    source = image_folder(root)
    found = [source.load(i).mean() for i in range(len(source))]
    if mean is not None and not any(abs(value - mean) < 2 for value in found):
        return Case(IMAGES, name, engine, LOST, seen, f"no picture has the mean {mean:.1f}")
    return Case(IMAGES, name, engine, EQUAL, seen)


def _damaged(bench: Bench, name: str, engine: str, policy: str, path: Path) -> Case:
    key = f"{engine} {policy}"
    ended = _train(bench, path.parents[1], engine, policy)
    seen = bench.tell(ended)
    if name in NO_FILES and ended.code == 0 and _LEFT_OUT in ended.said:
        return Case(IMAGES, name, key, EQUAL, seen)
    named = f"{path.parent.name}/{path.name}" in ended.said
    if policy == "fail" and ended.is_refusal and named:
        return Case(IMAGES, name, key, REFUSED, seen)
    if policy == "skip" and ended.code == 0 and named:
        return Case(IMAGES, name, key, EQUAL, seen)
    said = "its path is not told; " * (not named)
    return Case(IMAGES, name, key, LOST, seen, f"{said}exit {ended.code}: {ended.said[-200:]}")
