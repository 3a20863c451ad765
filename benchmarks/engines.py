# SPDX-License-Identifier: MIT
"""Images a second of both engines in one run: 32 px, in memory, solo-learn's symmetric CIFAR views.

    python benchmarks/engines.py [--workers 2] [--batches 20] [--batch-size 256] [--randaugment]

Both engines have the same number of worker processes. Only the ratio says something; the machine's
speed moves from run to run. The engines take turns, and the best round of each counts.
"""

import argparse
import time

import numpy as np

from ltplugins.data.engines import build_loader
from ltplugins.data.loader import Loader
from ltplugins.data.samplers import ShuffleSampler
from ltplugins.data.sources import from_arrays

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


def make_loader(engine: str, args: argparse.Namespace, num_ops: int = 0) -> Loader:
    """A loader over random colour images; pixels do not change the cost of any step."""
    count = args.batch_size * (args.batches + 1)
    rng = np.random.default_rng(0)
    shape = (count, args.size, args.size, 3)[: 3 if args.grey else 4]
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    source = from_arrays(images, np.arange(count) % 10)
    randaugment = {"prob": 1.0 if num_ops else 0.0, "num_ops": max(1, num_ops), "ops": "bcl"}
    return build_loader(
        source,
        np.arange(count),
        ShuffleSampler(count),
        [{**SYMMETRIC, "crop_size": args.size, "randaugment": randaugment}],
        engine=engine,
        batch_size=args.batch_size,
        num_workers=args.workers,
        seed=0,
    )


def images_per_second(loader: Loader) -> float:
    """Source images a second over an epoch, the first batch (start of the workers) left out."""
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    count = sum(len(batch[0]) for batch in batches)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grey", action="store_true", help="greyscale images")
    parser.add_argument(
        "--randaugment", action="store_true", help="also with 1 and 2 operations on every view"
    )
    args = parser.parse_args()
    loaders = {engine: make_loader(engine, args) for engine in ("workers", "batched")}
    if args.randaugment:
        for engine in ("workers", "batched"):
            for k in (1, 2):
                loaders[f"{engine}+{k}"] = make_loader(engine, args, k)
    best = dict.fromkeys(loaders, 0.0)
    for _ in range(args.rounds):
        for engine, loader in loaders.items():
            best[engine] = max(best[engine], images_per_second(loader))
    for engine, speed in best.items():
        own = best[engine.partition("+")[0]]
        print(f"{engine:9s} {speed:9.0f} images/s (2 views each) {speed / own:5.2f}")
    print(f"ratio     {best['batched'] / best['workers']:9.1f}x")


if __name__ == "__main__":
    main()
