# SPDX-License-Identifier: MIT
"""Metrics as CSV that survives a resume: Lightning's own CSVLogger deletes the earlier file."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from ltplugins.core.files import write_text


class MetricsLogger(Logger):
    """One row per (step, metric): ``epoch,step,metric,value``; written at every epoch's end.

    The long form needs no rewriting when a metric appears late (GH's terms after the warm-up);
    ``pandas.read_csv(path).pivot_table(index=["epoch", "step"], columns="metric", values="value")``
    is the wide one.

    Attributes:
        current_epoch: says the epoch of rows that come without one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.current_epoch: Callable[[], int] = lambda: 0
        self._rows: list[tuple[str, int, str, str]] = []

    @property
    def name(self) -> str:
        """Name the logger for Lightning, which asks every logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Give Lightning an empty version: a run folder has one metrics file."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run folder holds the config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep the values until :meth:`save`."""
        epoch = metrics.pop("epoch", None)
        epoch_text = str(self.current_epoch() if epoch is None else int(epoch))
        rows = [(epoch_text, int(step or 0), k, f"{v:.9g}") for k, v in metrics.items()]
        self._rows.extend(rows)
        if any(name.endswith("_epoch") for name in metrics):
            self.save()  # an epoch's means: the file is worth renewing

    @rank_zero_only
    def save(self) -> None:
        """Write all rows, atomically."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("epoch", "step", "metric", "value"))
        writer.writerows(self._rows)
        write_text(self.path, out.getvalue())

    def continue_from(self, step: int, epoch: int, last_epoch: Mapping[str, float]) -> None:
        """Take over an earlier file's rows; steps after the checkpoint will be logged again.

        Args:
            step: optimiser steps in the checkpoint.
            epoch: its last completed epoch, 0-based.
            last_epoch: means of that epoch. Lightning hands them to loggers just after the
                checkpoint is written, so a process killed in between has not written them.
        """
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as f:
                rows = [(r["epoch"], int(r["step"]), r["metric"], r["value"]) for r in _rows(f)]
            self._rows = [row for row in rows if row[1] < step]
        known = {(row[1], row[2]) for row in self._rows}
        self._rows += [
            (str(epoch), step - 1, name, f"{value:.9g}")
            for name, value in last_epoch.items()
            if (step - 1, name) not in known
        ]


def read_metrics(path: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read metrics.csv: metric -> (steps, values); values that are not finite are left out."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    with open(path, newline="", encoding="utf-8") as f:
        for row in _rows(f):
            if not math.isfinite(float(row["value"])):
                continue
            steps, values = curves.setdefault(row["metric"], ([], []))
            steps.append(int(row["step"]))
            values.append(float(row["value"]))
    return curves


def read_epochs(path: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read metrics.csv: metric -> (epochs, means over each), of finite values.

    Epochs are counted from 1: what stands at 3 was logged in the third.
    """
    found: dict[str, dict[int, list[float]]] = {}
    with open(path, newline="", encoding="utf-8") as f:
        for row in _rows(f):
            if math.isfinite(float(row["value"])):
                epochs = found.setdefault(row["metric"], {})
                epochs.setdefault(int(row["epoch"]) + 1, []).append(float(row["value"]))
    return {
        metric: (list(epochs), [sum(values) / len(values) for values in epochs.values()])
        for metric, epochs in found.items()
    }


def _rows(file: IO[str]) -> Iterator[dict[str, str]]:
    return iter(csv.DictReader(file))
