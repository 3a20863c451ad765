# SPDX-License-Identifier: MIT
"""What grows with the number of images: time and bytes at 10^4, 10^5, 10^6 generated indices.

    python benchmarks/scale.py [largest N]

One torch thread; processor seconds, medians, but for COLT's selection, which is made once.
docs/scale.md holds a table of it and what follows from it.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from timing import medians

from ltplugins.data.samplers import build_sampler
from ltplugins.losses.colt import allocate_budget
from ltplugins.losses.colt_selection import select_by_similarity
from ltplugins.losses.gh import population_prior, update_memory
from ltplugins.methods.colt import COLTConfig
from ltplugins.methods.colt_subset import clusters_and_means

B, K, CLASSES, DIM, POOL = 512, 100, 1000, 128, 300_000


def milliseconds(work: Callable[[], object], rounds: int = 3) -> float:
    return 1000 * medians({"work": work}, rounds)["work"]


def memory_lines(n: int) -> dict[str, float]:
    """GH's memory: an update of one batch, and the prior of all."""
    found = {}
    indexes, values = torch.randint(n, (B,)), torch.randn(B, K)
    for dtype in (torch.float32, torch.float16):
        memory, filled = torch.zeros(n, K, dtype=dtype), torch.ones(n, dtype=torch.bool)
        memory.normal_()
        name = str(dtype).removeprefix("torch.")
        found[f"GH memory, {name}, MB"] = (memory.nbytes + filled.nbytes) / 1e6
        found[f"GH memory update, {name}, ms"] = milliseconds(
            lambda m=memory, f=filled: update_memory(m, f, indexes, values, 0.9), 11
        )
        found[f"GH prior, {name}, ms"] = milliseconds(
            lambda m=memory, f=filled: population_prior(m, f)
        )
    scores, filled = torch.rand(n), torch.ones(n, dtype=torch.bool)
    found["COLT memory, MB"] = (scores.nbytes + filled.nbytes) / 1e6
    found["COLT memory update, ms"] = milliseconds(
        lambda: update_memory(scores, filled, indexes, values[:, 0], 0.97), 11
    )
    return found


def sampler_lines(n: int) -> dict[str, float]:
    """The order of an epoch, which every rank draws whole."""
    shares = 100.0 ** -np.linspace(0, 1, CLASSES)
    targets = np.random.default_rng(0).choice(CLASSES, n, p=shares / shares.sum())
    found = {}
    for name in ("shuffle", "paired", "class_aware"):
        sampler = build_sampler(name, targets, world_size=2)
        found[f"order of an epoch, {name}, ms"] = milliseconds(sampler.positions)
        rng = np.random.default_rng(0)
        found[f"order of an epoch, {name}, MB"] = sampler.global_order(rng).nbytes / 1e6
    return found


def selection_lines(n: int) -> dict[str, float]:
    """COLT's selection on rank 0, of features that are there: forty clusters, once."""
    feats = torch.randn(40, DIM)[torch.randint(40, (n,))]
    feats = F.normalize(feats.add_(torch.randn(n, DIM)), dim=1)
    scores, filled = torch.rand(n), torch.ones(n, dtype=torch.bool)
    pool = F.normalize(torch.randn(POOL, DIM), dim=1)
    start = time.process_time()
    centers, means = clusters_and_means(feats, scores, filled, COLTConfig())
    clustered = time.process_time()
    budgets = allocate_budget(means, 10_000)
    select_by_similarity(pool @ F.normalize(centers, dim=1).T, budgets)
    return {
        "COLT features of N on every rank, MB": feats.nbytes / 1e6,
        "COLT k-means and means, ms": 1000 * (clustered - start),
        "COLT choice from a pool of 300,000, ms": 1000 * (time.process_time() - clustered),
    }


def main() -> None:
    """Print the table in Markdown."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    torch.manual_seed(0)
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else 10**6
    sizes = [n for n in (10**4, 10**5, 10**6) if n <= largest]
    columns = [memory_lines(n) | sampler_lines(n) | selection_lines(n) for n in sizes]
    print("| | " + " | ".join(f"N = {n:,}" for n in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(f"{column[name]:,.3g}" for column in columns) + " |")


if __name__ == "__main__":
    main()
