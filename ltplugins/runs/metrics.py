# SPDX-License-Identifier: MIT
"""Metrics as CSV that survives a resume: Lightning's own CSVLogger deletes the earlier file."""

import csv
import io
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from ltplugins.core.files import write_text

log = logging.getLogger(__name__)


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
        self._has_failed = False

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
        # By name: the order that they come in is that of their first coming in this process.
        rows = [(epoch_text, int(step or 0), k, f"{v:.9g}") for k, v in sorted(metrics.items())]
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
        try:
            write_text(self.path, out.getvalue())
        except OSError as error:  # a curve stops no training
            if not self._has_failed:
                log.warning(
                    "%s cannot be written (%s): the training goes on, and its rows are written "
                    "as soon as they can be.",
                    self.path,
                    error.strerror,
                )
            self._has_failed = True
        else:
            self._has_failed = False

    def continue_from(self, step: int, epoch: int, last_epoch: Mapping[str, float]) -> None:
        """Take over an earlier file's rows; steps after the checkpoint will be logged again.

        Args:
            step: optimiser steps in the checkpoint.
            epoch: its last completed epoch, 0-based.
            last_epoch: means of that epoch. Lightning hands them to loggers just after the
                checkpoint is written, so a process killed in between has not written them.
        """
        self._rows = [row for row in self._earlier_rows(step) if row[1] < step]
        known = {(row[1], row[2]) for row in self._rows}
        self._rows += [
            (str(epoch), step - 1, name, f"{value:.9g}")
            for name, value in sorted(last_epoch.items())
            if (step - 1, name) not in known
        ]

    def _earlier_rows(self, step: int) -> list[tuple[str, int, str, str]]:
        """Those of the file; what of it is lost is said."""
        try:
            rows, damaged = read_rows(self.path)
        except OSError as error:
            log.warning(
                "%s cannot be read (%s): the metrics of the first %d steps are lost.",
                self.path,
                error.strerror,
                step,
            )
            return []
        if damaged:
            log.warning(
                "%s is damaged: %d of its rows cannot be read, and those metrics are lost.",
                self.path,
                damaged,
            )
        return rows


def read_rows(path: str | Path) -> tuple[list[tuple[str, int, str, str]], int]:
    """The rows of metrics.csv, (epoch, step, metric, value), and how many cannot be read.

    Raises:
        OSError: the file cannot be read.
    """
    rows, damaged = [], 0
    with open(path, newline="", encoding="utf-8", errors="replace") as f:
        lines = f.read().replace("\0", "\ufffd").splitlines()
    for row in csv.DictReader(lines):
        try:
            epoch, step, name, value = row["epoch"], int(row["step"]), row["metric"], row["value"]
            float(value), int(epoch)
        except (KeyError, TypeError, ValueError):
            damaged += 1
            continue
        if "\ufffd" in name:
            damaged += 1
        else:
            rows.append((epoch, step, name, value))
    return rows, damaged


def read_metrics(path: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read metrics.csv: metric -> (steps, values).

    Rows that are damaged, and values that are not finite, are left out.
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for _, step, name, text in read_rows(path)[0]:
        value = float(text)
        if math.isfinite(value):
            steps, values = curves.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)
    return curves


def read_epochs(
    path: str | Path, steps: int = 0
) -> tuple[dict[str, tuple[list[int], list[float]]], bool]:
    """Read metrics.csv: metric -> (epochs, means over each), of finite values; is it all of them.

    Epochs are counted from 1: what stands at 3 was logged in the third. Damaged rows are left out.

    Args:
        path: the file.
        steps: that were trained; it is whole where its last row is of the last of them.
    """
    found: dict[str, dict[int, list[float]]] = {}
    rows, damaged = read_rows(path)
    is_whole = not damaged and max((step for _, step, *_ in rows), default=-1) >= steps - 1
    for epoch, _, name, text in rows:
        if math.isfinite(float(text)):
            found.setdefault(name, {}).setdefault(int(epoch) + 1, []).append(float(text))
    means = {
        name: (list(epochs), [sum(values) / len(values) for values in epochs.values()])
        for name, epochs in found.items()
    }
    return means, is_whole
