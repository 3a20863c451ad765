# SPDX-License-Identifier: MIT
"""Cut the embedded Fashion-MNIST pack so that settings can be chosen without its test images.

    python scripts/sweep/hold_out.py [--out runs/hold_out]

train.npz and val.npz are its training images, 200 of each class held out in the latter; probe.npz
are its probe images. Nothing of the test part is read. ``gh_why.yaml`` runs on these files.
"""

import argparse
import logging
from pathlib import Path

import numpy as np

from ltplugins.core.files import atomic_path
from ltplugins.data.holdout import hold_out
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.build import build_source

HELD_OUT = 200  # of each class's 1,500
SEED = 0

log = logging.getLogger("hold_out")


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write one part as an .npz that ``data.format=arrays`` reads."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, images=images, labels=labels)
    log.info("%s: %d images, %d to %d a class", path, len(labels), *_extent(labels))


def _extent(labels: np.ndarray) -> tuple[int, int]:
    counts = np.bincount(labels)
    return int(counts.min()), int(counts.max())


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/hold_out"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    pool, probe = (build_source(DataConfig("fashion_pack"), part) for part in ("train", "probe"))
    rng = np.random.default_rng(SEED)
    labels = pool.targets
    kept, held = hold_out(labels, HELD_OUT * 10 / len(labels), rng)
    write(out / "train.npz", pool.images[kept], labels[kept])
    write(out / "val.npz", pool.images[held], labels[held])
    write(out / "probe.npz", probe.images, probe.targets)


if __name__ == "__main__":
    main()
