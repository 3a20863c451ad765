# SPDX-License-Identifier: MIT
"""Images a second of the engines in one run, with solo-learn's symmetric CIFAR views.

    python scripts/bench/engines.py [--jpeg] [--workers 2] [--batches 20] [--batch-size 256]
    python scripts/bench/engines.py --randaugment

Without --jpeg: 32 px, in memory. With it: 224 px views of generated JPEGs of 500 x 375 pixels.
``dali`` takes part where NVIDIA DALI is installed, on the CPU. All have the same number of worker
processes (``dali``: threads). Only the ratio says something; the machine's speed moves from run to
run. The engines take turns, and the best round of each counts.
"""

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.engines.build import build_loader
from ltplugins.data.engines.loader import Loader
from ltplugins.data.samplers.base import Shard
from ltplugins.data.schema import DaliConfig, DataConfig
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.sources.base import Source
from ltplugins.data.sources.files import image_folder
from ltplugins.data.training_set import TrainingSet

CPU = torch.device("cpu")
# scripts/pretrain/cifar/augmentations/symmetric.yaml of solo-learn 1.0.6.
SYMMETRIC = {
    "rrc": {"enabled": True, "crop_min_scale": 0.08, "crop_max_scale": 1.0},
    "color_jitter": {
        "prob": 0.8,
        "brightness": 0.8,
        "contrast": 0.8,
        "saturation": 0.8,
        "hue": 0.2,
    },
    "grayscale": {"prob": 0.2},
    "gaussian_blur": {"prob": 0.5},
    "solarization": {"prob": 0.0},
    "equalization": {"prob": 0.0},
    "horizontal_flip": {"prob": 0.5},
    "crop_size": 32,
    "num_crops": 2,
}


def engines() -> list[str]:
    """The engines that are installed."""
    found = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
    return ["workers", "batched"] + (["dali"] if found else [])


def array_source(count: int, size: int, grey: bool) -> Source:
    """Random images in memory; pixels do not change the cost of any step."""
    rng = np.random.default_rng(0)
    shape = (count, size, size, 3)[: 3 if grey else 4]
    return from_arrays(rng.integers(0, 256, shape, dtype=np.uint8), np.arange(count) % 10)


def jpeg_source(folder: Path, count: int) -> Source:
    """Smooth random JPEGs of ImageNet's common size; their bytes are those of photographs."""
    rng = np.random.default_rng(0)
    for i in range(count):
        (folder / str(i % 10)).mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (36, 48, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(
            folder / str(i % 10) / f"{i:05d}.jpg", quality=90
        )
    return image_folder(folder)


def make_loader(
    source: Source,
    engine: str,
    args: argparse.Namespace,
    num_ops: int = 0,
    device: torch.device = CPU,
) -> Loader:
    """A loader over all images of the source, with RandAugment's operations on every view."""
    randaugment = {"prob": 1.0 if num_ops else 0.0, "num_ops": max(1, num_ops), "ops": "bcl"}
    block = {**SYMMETRIC, "crop_size": args.size, "randaugment": randaugment}
    cfg = DataConfig("custom", engine=engine, num_workers=args.workers)
    training = TrainingSet(
        cfg,
        parse_augmentations([block]),
        args.batch_size,
        source=source,
        dali=DaliConfig(device="cpu"),
    )
    return build_loader(training, Shard(), device)


def images_per_second(loader: Loader) -> float:
    """Source images a second over an epoch, the first batch (start of the workers) left out."""
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    count = sum(len(batch[0]) for batch in batches)
    return count / (time.perf_counter() - start)


def measure(source: Source, args: argparse.Namespace) -> None:
    """Print one line an engine: images a second, and the ratio to ``workers``."""
    loaders = {engine: make_loader(source, engine, args) for engine in engines()}
    if args.randaugment:  # "+k": k operations on every view; not for dali
        for engine in ("workers", "batched"):
            for k in (1, 2):
                loaders[f"{engine}+{k}"] = make_loader(source, engine, args, num_ops=k)
    best = dict.fromkeys(loaders, 0.0)
    for _ in range(args.rounds):
        for engine, loader in loaders.items():
            best[engine] = max(best[engine], images_per_second(loader))
    for engine, speed in best.items():
        ratio = speed / best["workers"]
        print(f"{engine:9s} {speed:9.0f} images/s (2 views each) {ratio:6.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jpeg", action="store_true", help="224 px views of JPEG files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grey", action="store_true", help="greyscale images")
    parser.add_argument(
        "--randaugment", action="store_true", help="also with 1 and 2 operations on every view"
    )
    args = parser.parse_args()
    for name, in_memory, jpeg in (("size", 32, 224), ("batches", 20, 8), ("batch_size", 256, 32)):
        if getattr(args, name) is None:
            setattr(args, name, jpeg if args.jpeg else in_memory)
    count = args.batch_size * (args.batches + 1)
    with tempfile.TemporaryDirectory() as folder:
        measure(
            jpeg_source(Path(folder), count)
            if args.jpeg
            else array_source(count, args.size, args.grey),
            args,
        )


if __name__ == "__main__":
    main()
