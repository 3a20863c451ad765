# SPDX-License-Identifier: MIT
"""Rows of the table at the size of a real evaluation and a real OOD pool.

Legend: M bank images, T test images, N training images, P images of the OOD pool, C clusters.
"""

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator

import references
import torch
import torch.nn.functional as F
from timing import Row, medians

from ltplugins.losses.terms.ood_selection import allocate_budget, select_ood
from ltplugins.methods.colt import COLTConfig
from ltplugins.methods.parts.ood_subset import clusters_and_means
from ltplugins.metrics.knn import knn_predict

M, T, DIM, CLASSES, NEIGHBOURS, TEMPERATURE = 60_000, 10_000, 512, 100, 20, 0.07


def knn_data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bank, its labels, test features; classes are clusters, or every vote would be a draw."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(CLASSES, DIM, generator=generator)
    targets = torch.randint(CLASSES, (M,), generator=generator)
    bank = centers[targets] + 2 * torch.randn(M, DIM, generator=generator)
    kinds = torch.randint(CLASSES, (T,), generator=generator)
    return bank, targets, centers[kinds] + 2 * torch.randn(T, DIM, generator=generator)


def fast_knn(bank: torch.Tensor, targets: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    return knn_predict(
        bank, targets, queries, num_classes=CLASSES, k=NEIGHBOURS, temperature=TEMPERATURE
    )


def _extra_megabytes(path: str, threads: int, answer: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    """Run in a new process, or memory that other rows have freed would be taken again unseen."""
    torch.set_num_threads(threads)
    data = torch.load(path, mmap=True)  # pages of a file: not counted below
    fast_knn(data[0][:1000], data[1][:1000], data[2][:100])  # libraries take their own buffers
    stop, peak = threading.Event(), [0]

    def held() -> int:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], held())

    before = held()
    watcher = threading.Thread(target=watch)
    watcher.start()
    fast_knn(*data)
    stop.set()
    watcher.join()
    answer.put((peak[0] - before) / 1024)


def knn_rows(rounds: int) -> Iterator[Row]:
    """Peak memory, and time against one full similarity matrix."""
    data = knn_data()
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(data, f"{folder}/data.pt")
        arguments = (f"{folder}/data.pt", torch.get_num_threads(), answer)
        child = context.Process(target=_extra_megabytes, args=arguments)
        child.start()
        megabytes = answer.get(timeout=600)
        child.join()
    yield Row(f"kNN {M:,} x {T:,} x {DIM}: extra memory", megabytes, 256, "MB")
    same = fast_knn(*data) == references.knn(*data, CLASSES, NEIGHBOURS, TEMPERATURE)
    assert same.float().mean() > 0.9999  # but for equal votes
    contestants = {
        "fast": lambda: fast_knn(*data),
        "kNN": lambda: references.knn(*data, CLASSES, NEIGHBOURS, TEMPERATURE),
        "matrix": lambda: F.normalize(data[2], dim=1) @ F.normalize(data[0], dim=1).T,
    }
    times = medians(contestants, rounds)
    for name, what in (("kNN", "kNN on one full similarity matrix"), ("matrix", "that matrix")):
        details = f"{times['fast']:.2f} / {times[name]:.2f} s"
        yield Row(f"kNN, time against {what}", times["fast"] / times[name], 1, details=details)


def selection_rows(num_pool: int = 300_000, num_id: int = 10_847) -> Iterator[Row]:
    """COLT's steps 4b to 4e in seconds, of features that are there; wall time."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(num_pool, 128, generator=generator)
    feats = F.normalize(torch.randn(num_id, 128, generator=generator), dim=1)
    scores = torch.rand(num_id, generator=generator)
    filled = torch.ones(num_id, dtype=torch.bool)
    for assignment in ("greedy", "fair"):
        start = time.perf_counter()
        centers, means = clusters_and_means(feats, scores, filled, COLTConfig())
        cosines = F.normalize(pool, dim=1) @ F.normalize(centers, dim=1).T
        budgets = allocate_budget(means, 10_000)
        chosen = select_ood(cosines, budgets, assignment=assignment)
        seconds = time.perf_counter() - start
        assert len(chosen.unique()) == 10_000
        yield Row(f"OOD selection {num_pool:,} x 128, {assignment}", seconds, 5, "s")


def rows(rounds: int) -> Iterator[Row]:
    yield from knn_rows(rounds)
    yield from selection_rows()
