# SPDX-License-Identifier: MIT
"""The time of a call on the device, where there is one; without a GPU that of the CPU."""

import statistics
import time
from collections.abc import Callable

import torch

CUDA = torch.cuda.is_available()


def milliseconds(work: Callable[[], object], rounds: int = 20) -> float:
    """Median of a call, until all that it has launched is done."""
    times = []
    for _ in range(rounds):
        if CUDA:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter()
            work()
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
