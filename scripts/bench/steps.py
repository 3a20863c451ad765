# SPDX-License-Identifier: MIT
"""Cost of a training step of each method as a ratio to SimCLR's, in one run on this machine.

    python scripts/bench/steps.py [batch size]

Forward, loss and backward on one batch of the embedded data with the demo's network; medians of
rounds in which every method takes a step in turn, so that a machine that moves moves them all.
"""

import statistics
import sys
import time
import warnings

import lightning.pytorch as pl
import torch

import ltplugins
from ltplugins.config.data import training_set
from ltplugins.config.resolve import resolve
from ltplugins.data.engines.build import build_loader
from ltplugins.data.samplers.base import Shard
from ltplugins.stages.blocks import run_keys
from ltplugins.stages.compose import compose_packaged

ROUNDS = 9
METHODS = {
    "simclr": [],
    "gh_simclr": ["method_kwargs.gh.warmup=0", "method_kwargs.gh.ramp=0"],
    "colt_simclr": [],
    "bcl_simclr": [],
    "iccl": [],
    "ts_simclr": [],
    "focal": [],
    "sdclr_simclr": [],
    "byol": [],
    "gh_byol": ["method_kwargs.gh.warmup=0", "method_kwargs.gh.ramp=0"],
    "gml": [
        "augmentations=small_grey_gml",
        "method_kwargs.queue_size=1024",
        "method_kwargs.base_k=16",
    ],
}


def prepare(method: str, overrides: list[str], batch_size: int):
    """A method with one batch of its own data."""
    from ltplugins.host import METHODS as HOST_METHODS

    overrides = [f"method={method}", f"optimizer.batch_size={batch_size}", *overrides]
    run = resolve(compose_packaged("pretrain", overrides, run_keys))
    data = training_set(run)
    run = run.with_counts(data.num_samples, data.num_classes)
    pl.seed_everything(0, verbose=False)
    model = HOST_METHODS[run.method](run.host).train()
    if hasattr(model, "set_class_counts"):  # known by itself only when training starts
        model.set_class_counts(torch.as_tensor(data.class_counts))
    loader = build_loader(data, Shard(seed=run.seed), torch.device("cpu"))
    return model, next(iter(loader))


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    batch_size = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    ltplugins.register()
    runs = {name: prepare(name, extra, batch_size) for name, extra in METHODS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 2):
        for name, (model, batch) in runs.items():
            start = time.perf_counter()
            model.training_step(batch, 0).backward()
            seconds[name].append(time.perf_counter() - start)
            model.zero_grad()
    base = statistics.median(seconds["simclr"][2:])
    print(f"batch {batch_size}, {torch.get_num_threads()} threads, medians of {ROUNDS} steps")
    for name, times in seconds.items():
        median = statistics.median(times[2:])
        print(f"{name:12s} {1000 * median:7.1f} ms  {median / base:5.2f} x simclr")


if __name__ == "__main__":
    main()
