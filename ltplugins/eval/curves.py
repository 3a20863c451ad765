# SPDX-License-Identifier: MIT
"""Logged training curves, read back from a run's CSV."""

import csv
import math
from pathlib import Path


def read_curves(path: str | Path) -> dict[str, tuple[list[float], list[float]]]:
    """Read a Lightning ``metrics.csv``: metric name -> (steps, values).

    Lightning writes one line per log call and leaves the other metrics' cells empty; ``epoch`` is
    not a metric. Values that are not finite are left out. A resumed run may log a step twice; the
    later line counts.
    """
    curves: dict[str, dict[float, float]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            step = line.pop("step", None)
            line.pop("epoch", None)
            if not step:
                continue
            for name, text in line.items():
                value = _number(text)
                if value is not None:
                    curves.setdefault(name, {})[float(step)] = value
    return {
        name: ([*sorted(points)], [points[step] for step in sorted(points)])
        for name, points in curves.items()
    }


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
