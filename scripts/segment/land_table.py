# SPDX-License-Identifier: MIT
"""Which encoder segments land_pack best: seeds x encoders x losses, one table.

    python scripts/segment/land_table.py [--seeds 0 1 2] [--epochs 30] [--pretrain-epochs 60]
    python scripts/segment/land_table.py --accelerator gpu --jobs 8 --limit 540   # and so on again

Every run is a command of ltplugins': started again, this script goes on where it was. What is done
is in ``OUT/cells.json`` (``--cells``), some 60 KB, from which the table is made: with that file
alone, on another machine, the runs behind it are not done again. Encoders are pretrained on
land_pack's tiles of the same spatial split, with the seed of their segmentation. ``random`` is the
same network from scratch. Intervals are of Student's t over the seeds, at 95 %; with three of them
they are wide, and no claim is made.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jobs import Task, run_tasks
from scipy import stats

from ltplugins.core import files
from ltplugins.downstream.segmentation.results import SegmentResults

ENCODERS = ("random", "simclr", "gh_simclr", "colt_simclr")
LOSSES = ("ce", "adjusted")
CONFIGS = Path(__file__).resolve().parents[1] / "pretrain" / "land"
COLUMNS = ("mIoU", "pixel accuracy", "rare by images", "rare by pixels", "frequent by pixels")
PRECISIONS = {"32": "32", "bf16": "bf16-mixed"}

Cell = dict[str, Any]
# (encoder, loss, seed) by the name of its folder.
Cells = dict[str, tuple[str, str, int]]


def read_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/segment-land"))
    parser.add_argument("--cells", type=Path, help="the numbers; without it OUT/cells.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--pretrain-epochs", type=int, default=60)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--losses", nargs="+", default=LOSSES, choices=LOSSES)
    parser.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "gpu"))
    parser.add_argument("--precision", default="32", choices=PRECISIONS)
    parser.add_argument("--jobs", type=int, default=1, help="commands at once, on one device")
    parser.add_argument("--limit", type=float, help="seconds, after which it stops, to go on later")
    parser.add_argument("words", nargs="*", help="further keys of ltplugins segment")
    args = parser.parse_args(words)
    if args.jobs < 1:
        parser.error(f"--jobs: expected 1 or more, got {args.jobs}")
    if args.accelerator == "gpu" and not _has_gpu():
        parser.error("--accelerator: expected auto or cpu, for there is no GPU here, got gpu")
    args.cells = args.cells or args.out / "cells.json"
    return args


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def settings(args: argparse.Namespace) -> Cell:
    """What the numbers depend on, beside encoder, loss and seed."""
    keys = ("epochs", "pretrain_epochs", "precision", "words")
    return {key: getattr(args, key) for key in keys}


def read_cells(path: Path, own: Cell) -> dict[str, Cell]:
    """The cells that are there.

    Raises:
        SystemExit: they are of other settings.
    """
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    if found["settings"] != own:
        sys.exit(f"error: {path} is of {found['settings']}, not of {own}. Give another --out.")
    return dict(found["cells"])


def wanted(args: argparse.Namespace) -> Cells:
    """All cells, a seed after the other: an early end leaves whole seeds."""
    return {
        f"{name}-{loss}-{seed}": (name, loss, seed)
        for seed in args.seeds
        for name in args.encoders
        for loss in args.losses
    }


def tasks(cells: Cells, args: argparse.Namespace) -> list[Task]:
    """The commands behind cells, each encoder once."""
    found: dict[str, Task] = {}
    for cell, (name, loss, seed) in cells.items():
        method = "simclr" if name == "random" else name  # its network, statistics and split
        encoder = f"encoder-{method}-{seed}"
        found[encoder] = Task(encoder, _pretrain(method, seed, args.out / encoder, args))
        found[cell] = Task(
            cell, _segment(args.out / encoder, cell, name, loss, seed, args), encoder
        )
    return list(found.values())


def _machine(args: argparse.Namespace) -> list[str]:
    words = [f"accelerator={args.accelerator}"]
    return words if args.precision == "32" else [*words, f"precision={PRECISIONS[args.precision]}"]


def _pretrain(method: str, seed: int, out: Path, args: argparse.Namespace) -> list[str]:
    return [
        sys.executable, "-m", "ltplugins.cli", "pretrain",
        "--config-path", str(CONFIGS), "--config-name", method, f"seed={seed}",
        f"output_dir={out}", f"max_epochs={args.pretrain_epochs}", *_machine(args),
    ]  # fmt: skip


def _segment(
    encoder: Path, cell: str, name: str, loss: str, seed: int, args: argparse.Namespace
) -> list[str]:
    weights = "random" if name == "random" else "run"
    return [
        sys.executable, "-m", "ltplugins.cli", "segment", str(encoder),
        f"output_dir={args.out / cell}", f"weights={weights}", f"loss={loss}", f"seed={seed}",
        f"epochs={args.epochs}", "val_every=0", *_machine(args), *args.words,
    ]  # fmt: skip


def numbers(folder: Path) -> Cell:
    """What a cell is: COLUMNS in percent, IoU by class, and the confusion behind them."""
    found = SegmentResults.read(folder / "results.json")
    by_images, by_pixels = found.groups["images"], found.groups["pixels"]
    values = (
        found.miou, found.accuracy, by_images["rare"], by_pixels["rare"], by_pixels["frequent"],
    )  # fmt: skip
    percent = [None if value is None else 100 * value for value in values]
    return {
        "numbers": dict(zip(COLUMNS, percent, strict=True)),
        "method": found.method,
        "data": found.data["description"],
        "confusion": [" ".join(map(str, row)) for row in found.confusion],
    }


def interval(values: Sequence[float | None]) -> str:
    """Mean and half the interval at 95 %; of one value the number alone."""
    known = np.array([value for value in values if value is not None])
    if len(known) < 2:
        return f"{known.mean():.1f}" if len(known) else "n/a"
    half = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return f"{known.mean():.1f} ± {half:.1f}"


def table(cells: Mapping[str, Cell], args: argparse.Namespace) -> str:
    """Rows of encoder and loss, then what each encoder has more than ``random``, pair by pair."""
    of = {key: cells[name]["numbers"] for name, key in wanted(args).items() if name in cells}
    head = f"seeds {args.seeds}, {args.epochs} epochs, encoders of {args.pretrain_epochs}"
    lines = [f"{head}, precision {args.precision}", ""]
    lines += [f"| encoder | loss | n | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 3) + "|"]
    rows = [(name, loss) for name in args.encoders for loss in args.losses]
    for row in rows:
        found = [of[(*row, seed)] for seed in args.seeds if (*row, seed) in of]
        texts = [interval([one[column] for one in found]) for column in COLUMNS]
        lines.append(f"| {' | '.join((*row, str(len(found)), *texts))} |")
    for name, loss in rows:
        pairs = [(of.get((name, loss, s)), of.get(("random", loss, s))) for s in args.seeds]
        both = [(one, other) for one, other in pairs if one and other]
        if name == "random" or not both:
            continue
        texts = [interval([_less(a[c], b[c]) for a, b in both]) for c in COLUMNS]
        lines.append(f"| {name} minus random | {loss} | {len(both)} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def main(words: Sequence[str] | None = None) -> None:
    """Run what is not done, and show what is."""
    args = read_arguments(words)
    cells, own = read_cells(args.cells, settings(args)), settings(args)
    every = wanted(args)
    todo = {name: key for name, key in every.items() if name not in cells}

    def keep(name: str) -> None:
        print(f"done: {name}", flush=True)
        if name in todo:
            cells[name] = {**numbers(args.out / name), "accelerator": args.accelerator}
            files.write_json(args.cells, {"settings": own, "cells": cells})

    lost = run_tasks(
        tasks(todo, args), args.out / "logs", jobs=args.jobs, limit=args.limit, done=keep
    )
    print(table(cells, args))
    for name, why in lost.items():
        print(f"not done: {name}: {why}", file=sys.stderr)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
