# SPDX-License-Identifier: MIT
"""Which encoder segments land_pack best: seeds x encoders x losses, one table.

    python scripts/segment/land_table.py [--seeds 0 1 2] [--epochs 30] [--pretrain-epochs 60]

Every run is a command of ltplugins': started again, this script goes on where it was, and what is
complete is only read. Encoders are pretrained on land_pack's tiles of the same spatial split, with
the seed of their segmentation. ``random`` is the same network from scratch. Intervals are of
Student's t over the seeds, at 95 %; with three of them they are wide, and no claim is made.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from ltplugins.downstream.segmentation.results import SegmentResults

ENCODERS = ("random", "simclr", "gh_simclr", "colt_simclr")
LOSSES = ("ce", "adjusted")
CONFIGS = Path(__file__).resolve().parents[1] / "pretrain" / "land"
# Student's t at 97.5 % for 1, 2, ... degrees of freedom; beyond them the last one is safe.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
COLUMNS = ("mIoU", "pixel accuracy", "rare by images", "rare by pixels", "frequent by pixels")


def run(*words: str) -> None:
    """One command of ltplugins'; the script ends where it fails."""
    subprocess.run([sys.executable, "-m", "ltplugins.cli", *words], check=True)


def encoder(name: str, seed: int, args: argparse.Namespace) -> Path:
    """The folder of a pretraining, which is done first."""
    method = "simclr" if name == "random" else name  # its network, statistics and split
    out = args.out / f"{method}-{seed}"
    run(
        "pretrain", "--config-path", str(CONFIGS), "--config-name", method, f"seed={seed}",
        f"output_dir={out}", f"max_epochs={args.pretrain_epochs}",
    )  # fmt: skip
    return out


def segment(name: str, loss: str, seed: int, args: argparse.Namespace) -> Path:
    """The folder of a segmentation, which is done first."""
    out = args.out / f"{name}-{loss}-{seed}"
    if (out / "results.json").exists():
        return out
    weights = "random" if name == "random" else "run"
    run(
        "segment", str(encoder(name, seed, args)), f"output_dir={out}", f"weights={weights}",
        f"loss={loss}", f"seed={seed}", f"epochs={args.epochs}", "val_every=0", *args.words,
    )  # fmt: skip
    return out


def numbers(folder: Path) -> list[float]:
    """As COLUMNS, in percent."""
    found = SegmentResults.read(folder / "results.json")
    by_images, by_pixels = found.groups["images"], found.groups["pixels"]
    values = (
        found.miou, found.accuracy, by_images["rare"], by_pixels["rare"], by_pixels["frequent"],
    )  # fmt: skip
    return [float("nan") if value is None else 100 * value for value in values]


def cell(values: np.ndarray) -> str:
    """Mean and half the interval; of one seed the number alone."""
    if len(values) < 2:
        return f"{values.mean():.1f}"
    half = T[min(len(values) - 1, len(T)) - 1] * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.1f} ± {half:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/segment-land"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--pretrain-epochs", type=int, default=60)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("words", nargs="*", help="further keys of ltplugins segment")
    args = parser.parse_args()
    rows: dict[tuple[str, str], list[list[float]]] = {}
    for seed in args.seeds:
        for name in args.encoders:
            for loss in LOSSES:
                found = numbers(segment(name, loss, seed, args))
                rows.setdefault((name, loss), []).append(found)
    print(f"seeds {args.seeds}, {args.epochs} epochs, encoders of {args.pretrain_epochs}")
    print("| encoder | loss |", " | ".join(COLUMNS), "|")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for (name, loss), values in rows.items():
        cells = [cell(column) for column in np.array(values).T]
        print(f"| {name} | {loss} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
