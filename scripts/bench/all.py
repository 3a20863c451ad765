# SPDX-License-Identifier: MIT
"""The table of speeds: each bar with what was measured, in one run on this machine.

    python scripts/bench/all.py [--threads 1] [--only terms,steps,engines,large]

The slow forms of ``references.py`` are asserted equal to the package's before either is timed.
README.md beside this file says what each row means. A row that fails does not fail the command.
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Iterator

import engines
import large
import steps
import terms
import torch
from threadpoolctl import threadpool_limits
from timing import Row, medians, print_row

import ltplugins
from ltplugins.data.engines.loader import Loader

SECTIONS = ("terms", "steps", "engines", "large")


def engine_loaders(batches: int, batch_size: int = 256) -> dict[str, Loader]:
    """``workers`` and ``batched`` with two workers each, 32 px in memory."""
    args = argparse.Namespace(workers=2, batch_size=batch_size, size=32)
    source = engines.array_source((batches + 1) * batch_size, args.size, grey=False)
    return {name: engines.make_loader(source, name, args) for name in ("workers", "batched")}


def engine_row(rounds: int) -> Row:
    """Engines share the work with their processes, so wall time and all cores."""
    loaders = engine_loaders(batches=8)
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    speeds: dict[str, list[float]] = {engine: [] for engine in loaders}
    for _ in range(rounds):
        for engine, loader in loaders.items():
            speeds[engine].append(engines.images_per_second(loader))
    torch.set_num_threads(threads)
    middle = {engine: sorted(values)[rounds // 2] for engine, values in speeds.items()}
    details = ", ".join(f"{engine} {speed:.0f} images/s" for engine, speed in middle.items())
    return Row(
        "engine batched against workers, 32 px, in memory",
        middle["batched"] / middle["workers"],
        6,
        at_least=True,
        details=details,
    )


def step_rows(rounds: int) -> Iterator[Row]:
    """Whole training steps of the wrappers as ratios to their base's."""
    network = ["backbone.name=resnet18", "backbone.small_stem=true", "augmentations.0.crop_size=32"]
    ltplugins.register()
    contestants = {}
    for name in ("simclr", "gh_simclr", "colt_simclr"):
        model, batch = steps.prepare(name, [*network, *steps.METHODS[name]], 256)
        if name == "colt_simclr":
            model.colt_first = 0  # the domain term too, which otherwise joins after the warm-up

        def step(model: torch.nn.Module = model, batch: list = batch) -> None:
            model.training_step(batch, 0).backward()
            model.zero_grad()

        contestants[name] = step
    times = medians(contestants, rounds)
    for name in ("gh_simclr", "colt_simclr"):
        details = f"{times[name]:.3f} / {times['simclr']:.3f} s"
        what = f"step of {name} against simclr, ResNet-18, 32 px"
        yield Row(what, times[name] / times["simclr"], 1.05, details=details)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--threads", type=int, default=1, help="but for the engines, which take all cores"
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, comma-separated")
    parser.add_argument("--rounds", type=int, default=11, help="of short rows; long ones take 3")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    threadpool_limits(args.threads)  # of k-means, for as long as this process lives
    torch.set_num_threads(args.threads)
    wanted = args.only.split(",")
    assert set(wanted) <= set(SECTIONS), SECTIONS
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {args.threads} torch threads, torch "
        f"{torch.__version__}, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d %H:%M')}"
    )
    parts = {
        "terms": lambda: terms.rows(args.rounds),
        "engines": lambda: iter([engine_row(3)]),
        "steps": lambda: step_rows(3),
        "large": lambda: large.rows(3),
    }
    rows = []
    for name in SECTIONS:
        if name in wanted:
            for row in parts[name]():
                print_row(row)
                rows.append(row)
    print(f"{sum(row.passes for row in rows)} of {len(rows)} pass; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
