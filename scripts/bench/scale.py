# SPDX-License-Identifier: MIT
"""What grows with images (10^4, 10^5, 10^6 generated indices), classes, weights and the batch.

    python scripts/bench/scale.py [largest N]

One torch thread; processor seconds, medians, but for COLT's selection, which is made once.
docs/scale.md holds the tables and what follows from them.
"""

import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from scale_methods import (
    batch_lines,
    bcl_lines,
    gml_lines,
    iccl_lines,
    sdclr_lines,
    stateless,
)
from threadpoolctl import threadpool_limits
from timing import milliseconds, print_table

from ltplugins.data.samplers.base import Shard
from ltplugins.data.samplers.build import build_sampler
from ltplugins.data.schema import SamplerConfig
from ltplugins.losses.gh import direction_counts, prior_from_counts
from ltplugins.losses.terms.memory import update_memory
from ltplugins.losses.terms.ood_selection import allocate_budget, select_ood
from ltplugins.methods.colt import COLTConfig
from ltplugins.methods.parts.ood_subset import clusters_and_means

B, K, CLASSES, DIM, POOL = 512, 100, 1000, 128, 300_000


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
            lambda m=memory, f=filled: prior_from_counts(direction_counts(m, f))
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
    for name in ("shuffle", "paired", "class_aware", "two_branch"):
        sampler = build_sampler(SamplerConfig(name), targets, Shard(world_size=2))
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
    select_ood(pool @ F.normalize(centers, dim=1).T, budgets)
    return {
        "COLT features of N on every rank, MB": feats.nbytes / 1e6,
        "COLT k-means and means, ms": 1000 * (clustered - start),
        "COLT choice from a pool of 300,000, ms": 1000 * (time.process_time() - clustered),
    }


def main() -> None:
    """Print the tables in Markdown."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    torch.manual_seed(0)
    print_load()
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else 10**6
    print_table(
        {
            f"N = {n:,}": memory_lines(n) | bcl_lines(n) | sampler_lines(n) | selection_lines(n)
            for n in (10**4, 10**5, 10**6)
            if n <= largest
        }
    )
    classes = (10, 100, 1000, 8142)
    print_table({f"C = {c:,}": iccl_lines(c) | gml_lines(c) for c in classes})
    print_table({name: sdclr_lines(name) for name in ("resnet18", "resnet50")})
    print_table({f"B = {b:,}": batch_lines(b) for b in (256, 512, 1024)})
    print(f"no state beside SimCLR's: {', '.join(stateless())}\n")
    print_load()


def print_load() -> None:
    print("load of the last 1, 5, 15 minutes:", *(f"{x:.2f}" for x in os.getloadavg()), "\n")


if __name__ == "__main__":
    main()
