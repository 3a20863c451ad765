# SPDX-License-Identifier: MIT
"""Shared set-up: quiet Lightning, and which tests one worker runs, and when."""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator

import pytest

# Memory where it may be had: a run waits for the disk longer than it computes, at every fsync.
MEMORY, ENOUGH = "/dev/shm", 4 << 30
HAS_ROOM = os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free >= ENOUGH
if HAS_ROOM and "TMPDIR" not in os.environ:
    os.environ["TMPDIR"] = f"{MEMORY}/ltplugins-tests-{os.getuid()}"
    os.makedirs(os.environ["TMPDIR"], mode=0o700, exist_ok=True)
    tempfile.tempdir = None  # it is asked for again
# What is known of files between runs: nothing of a user's, and nothing left behind for one.
os.environ.setdefault("LTPLUGINS_CACHE", f"{tempfile.gettempdir()}/ltplugins-tests-{os.getuid()}")
warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A command line that runs in this process sets them up for itself; in a sweep, Hydra does."""
    ours, root = logging.getLogger("ltplugins"), logging.getLogger()
    before = (ours.propagate, ours.level, list(ours.handlers), root.level)
    yield
    ours.propagate, ours.level, ours.handlers, level = before
    root.setLevel(level)


def group_of(item: pytest.Item) -> str | None:
    """The group that a test names, or its file where the tests of it share what is slow to make."""
    mark = item.get_closest_marker("xdist_group")
    if mark is not None:
        return mark.args[0]
    info = getattr(item, "_fixtureinfo", None)
    shared = info and any(defs[-1].scope == "module" for defs in info.name2fixturedefs.values())
    return item.nodeid.split("::")[0] if shared else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups first, the longest of them before all: no worker ends with one while others rest."""
    for item in items:
        group = group_of(item)
        if group is not None and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))
    longest = ("rank_runs", "ranks", "dali_ranks")

    def place(item: pytest.Item) -> int:
        group = group_of(item)
        return longest.index(group) if group in longest else 3 + (group is None)

    items.sort(key=place)
