# SPDX-License-Identifier: MIT
"""Build ltplugins/data/packs/fashion_pack.npz from the Fashion-MNIST files.

    python scripts/packs/fashion.py [--source /usr/share/datasets/fashion-mnist]

The bytes are the same on every run: seeded choice, fixed time stamps, one compressor. After a
change, put the printed hash into ltplugins/data/sources/packs.py.
"""

import argparse
import logging
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from ltplugins.core.files import atomic_path, sha256
from ltplugins.data.sources.idx import read_fashion_idx

POOL_PER_CLASS = 1500
PROBE_PER_CLASS = 100
SEED = 0
PACKS = Path(__file__).resolve().parents[2] / "ltplugins" / "data" / "packs"

log = logging.getLogger("fashion_pack")


def choose(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the pool and of the probe set, disjoint, sorted by class, then by position."""
    rng = np.random.RandomState(seed)
    pool, probe = [], []
    for c in range(10):
        positions = rng.permutation(np.where(labels == c)[0])
        pool.append(np.sort(positions[:POOL_PER_CLASS]))
        probe.append(np.sort(positions[POOL_PER_CLASS : POOL_PER_CLASS + PROBE_PER_CLASS]))
    return np.concatenate(pool), np.concatenate(probe)


def collect(source: Path) -> dict[str, np.ndarray]:
    """Arrays of the pack; ``*_source_index`` are positions in the official files."""
    images, labels = read_fashion_idx(source, "train")
    test_images, test_labels = read_fashion_idx(source, "test")
    pool, probe = choose(labels, SEED)
    # Images of one class beside each other compress better; every reader shuffles anyway.
    test = np.argsort(test_labels, kind="stable")
    parts = {
        "train": (images, labels, pool),
        "probe": (images, labels, probe),
        "test": (test_images, test_labels, test),
    }
    arrays: dict[str, np.ndarray] = {}
    for name, (x, y, index) in parts.items():
        arrays[f"{name}_images"] = x[index]
        arrays[f"{name}_labels"] = y[index].astype(np.uint8)
        arrays[f"{name}_source_index"] = index.astype(np.uint16)
    return arrays


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz that numpy reads, LZMA instead of deflate (9.8 MB instead of 11.3 MB)."""
    with atomic_path(path) as tmp, zipfile.ZipFile(tmp, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            buffer = BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue())


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=PACKS / "fashion_pack.npz")
    args = parser.parse_args()
    write_npz(args.out, collect(args.source))
    log.info("%s: %d bytes, sha256 %s", args.out, args.out.stat().st_size, sha256(args.out))


if __name__ == "__main__":
    main()
