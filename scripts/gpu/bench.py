# SPDX-License-Identifier: MIT
"""Speeds on a GPU: engines, the wrappers' steps over their base's, compilation, memory.

    python scripts/gpu/bench.py [--only engines,steps,compile] [--json FILE] [--quick]

Each contestant takes turns with the others in one process; medians of CUDA events. Without a GPU
(``GPU_DRY_RUN=1``) every line runs on the CPU with tiny sizes, and the numbers mean nothing.
"""

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import engines
import steps
from clock import CUDA, milliseconds

import ltplugins
from ltplugins.data.engines.batched import RawLoader

DEVICE = torch.device("cuda" if CUDA else "cpu")
WRAPPED = ("simclr", "gh_simclr", "colt_simclr", "ts_simclr", "sdclr_simclr", "bcl_simclr")
Found = dict[str, Any]


def profiled(work: Callable[[], object]) -> Found:
    """Kernels and copies that a call starts, and how long the device is busy with them."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    if not CUDA:
        return {"launches": 0, "device_ms": 0.0}
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as prof:
        work()
        torch.cuda.synchronize()
    names = ("cudaLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync", "cuLaunchKernel")
    started = sum(event.name.startswith(names) for event in prof.events())
    busy = sum(e.self_device_time_total for e in prof.events() if e.device_type == DeviceType.CUDA)
    return {"launches": started, "device_ms": busy / 1000}


def waits(work: Callable[[], object]) -> int:
    """How often a call makes the CPU wait for the device."""
    if not CUDA:
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(w.message) for w in found)


def settle() -> None:
    if CUDA:
        torch.cuda.synchronize()


def batched_on_device(size: int, batch: int, rounds: int) -> Found:
    """Views of images in memory, made on the device: alone, and with slices and copies to it."""
    args = argparse.Namespace(workers=0, batch_size=batch, size=size)
    source = engines.array_source(batch * (rounds + 2), size, grey=False)
    loader = engines.make_loader(source, "batched", args, device=torch.device("cuda"))
    assert isinstance(loader, RawLoader)
    batches = iter(loader)
    first = next(batches)
    there = first._replace(images=first.images.to(DEVICE))
    loader.finish(there)
    alone = milliseconds(lambda: loader.finish(there), rounds)
    settle()
    start, count = time.perf_counter(), 0
    for raw in batches:
        loader.finish(raw, DEVICE)
        count += len(raw.indexes)
    settle()
    return {
        "ms_views": alone,
        "images_per_s_views": 1000 * batch / alone,
        "images_per_s_with_copies": count / (time.perf_counter() - start),
        **profiled(lambda: loader.finish(there)),
        "waits": waits(lambda: loader.finish(there)),
    }


def on_workers(engine: str, size: int, batch: int, rounds: int, workers: int) -> Found:
    """Views of images in memory, made by worker processes on the CPU."""
    args = argparse.Namespace(workers=workers, batch_size=batch, size=size)
    source = engines.array_source(batch * (rounds + 1), size, grey=False)
    loader = engines.make_loader(source, engine, args)
    return {"images_per_s": engines.images_per_second(loader), "workers": workers}


def engine_rows(quick: bool) -> Iterator[Found]:
    workers = min(16, os.cpu_count() or 1)
    for size, batch in ((32, 512), (224, 128)):
        if quick:
            batch, workers = 16, 0
        yield {f"batched {size}px": batched_on_device(size, batch, 3 if quick else 40)}
        rounds = 2 if quick else (60 if size == 32 else 12)
        yield {f"workers {size}px": on_workers("workers", size, batch, rounds, workers)}
    if "dali" in engines.engines() and not quick:
        yield {"dali 32px (CPU)": on_workers("dali", 32, 512, 20, workers)}


class Step:
    """A training step of a method: forward, loss, backward, optimizer, in bf16 autocast."""

    def __init__(self, method: str, network: list[str], batch: int, size: int) -> None:
        extra = steps.METHODS.get(method, [])
        overrides = [*network, f"augmentations.0.crop_size={size}", *extra]
        model, given = steps.prepare(method, overrides, batch)
        model.log = model.log_dict = lambda *args, **kwargs: None  # there is no Trainer
        self.model = model.to(DEVICE, memory_format=torch.channels_last)
        if method == "colt_simclr":
            model.colt_first = 0  # the domain term too
        views = [torch.randn(batch, 3, size, size, device=DEVICE) for _ in given[1]]
        indexes, targets = (given[i].to(DEVICE) for i in (0, 2))
        self.batch = [indexes, views, targets]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)

    def __call__(self) -> None:
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss = self.model.training_step(self.batch, 0)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def step_rows(name: str, network: list[str], batch: int, size: int, rounds: int) -> Found:
    """Milliseconds of each wrapper's step, its ratio to SimCLR's, launches, waits, memory.

    ``ms`` is what a step takes, with the host's launches; ``device_ms`` what the device works.
    """
    found: Found = {}
    contestants: dict[str, Step] = {}
    for method in WRAPPED:
        try:
            contestants[method] = Step(method, network, batch, size)
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
            for _ in range(3):
                contestants[method]()
            settle()
            peak = torch.cuda.max_memory_allocated() / 2**30 if CUDA else 0.0
            found[method] = {"peak_gib": peak}
        except Exception as error:  # the others are measured all the same
            contestants.pop(method, None)
            found[method] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    times: dict[str, list[float]] = {method: [] for method in contestants}
    for _ in range(rounds):
        for method, step in contestants.items():
            times[method].append(milliseconds(step, 3))
    base = statistics.median(times["simclr"])
    for method, values in times.items():
        median = statistics.median(values)
        step = contestants[method]
        found[method] |= {"ms": median, "over_simclr": median / base, "waits": waits(step)}
        found[method] |= profiled(step)
    for method in times:  # with a faster host the device is what is waited for
        ratio = found[method]["device_ms"] / max(found["simclr"]["device_ms"], 1e-9)
        found[method]["device_over_simclr"] = ratio
    return {f"{name}, {size}px, batch {batch}": found}


RESNET18 = ["backbone.name=resnet18", "backbone.small_stem=true"]
RESNET50 = ["backbone.name=resnet50", "backbone.small_stem=false"]
SMALL = ["backbone.name=test_resnet", "backbone.small_stem=false"]


NETWORKS = {
    "resnet18": ("ResNet-18", RESNET18, 512, 32, 7),
    "test_resnet": ("test_resnet", SMALL, 256, 32, 7),
    "resnet50": ("ResNet-50", RESNET50, 128, 224, 3),
}


def all_steps(quick: bool, networks: Sequence[str] = tuple(NETWORKS)) -> Iterator[Found]:
    if quick:
        yield step_rows("test_resnet", SMALL, 8, 32, 1)
        return
    for name in networks:
        yield step_rows(*NETWORKS[name])


def compiled(quick: bool) -> Iterator[Found]:
    """SimCLR's step with and without ``torch.compile`` of the backbone."""
    network, batch, rounds = (SMALL, 8, 1) if quick else (RESNET18, 512, 7)
    plain, other = Step("simclr", network, batch, 32), Step("simclr", network, batch, 32)
    start = time.perf_counter()
    if not quick:
        other.model.backbone = torch.compile(other.model.backbone)
    for step in (plain, other):
        for _ in range(3):
            step()
    settle()
    seconds = time.perf_counter() - start
    times = {"plain": [], "compiled": []}
    for _ in range(rounds):
        times["plain"].append(milliseconds(plain, 3))
        times["compiled"].append(milliseconds(other, 3))
    one, two = (statistics.median(values) for values in times.values())
    yield {"ms": {"plain": one, "compiled": two, "ratio": two / one, "first_s": seconds}}


SECTIONS = {"engines": engine_rows, "steps": all_steps, "compile": compiled}


def guarded(tables: Iterator[Found]) -> Iterator[Found]:
    """A section's tables; one that fails ends its section, and takes no other with it."""
    try:
        yield from tables
    except Exception as error:
        yield {"error": f"{type(error).__name__}: {error}"}


def show(found: Found, indent: int = 0) -> None:
    for name, value in found.items():
        if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            print(f"{' ' * indent}{name}")
            show(value, indent + 2)
        else:
            items = value.items() if isinstance(value, dict) else [("", value)]
            words = [f"{k} {v:,.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in items]
            print(f"{' ' * indent}{name:<24} {', '.join(words)}", flush=True)


def main() -> None:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, comma-separated")
    parser.add_argument("--json", type=Path, help="where the numbers are written")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="of the steps")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    ltplugins.register()
    name = torch.cuda.get_device_name() if CUDA else "no GPU"
    found: Found = {"device": name, "torch": torch.__version__, "cores": os.cpu_count()}
    print(f"{name}, torch {torch.__version__}, {os.cpu_count()} cores", flush=True)
    for section in args.only.split(","):
        networks = {"networks": args.networks.split(",")} if section == "steps" else {}
        found[section] = {}
        for rows in guarded(SECTIONS[section](args.quick, **networks)):
            found[section] |= rows
            show({section: rows})
            if args.json:  # at once: the call has a limit
                args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
