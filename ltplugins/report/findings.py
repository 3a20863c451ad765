# SPDX-License-Identifier: MIT
"""What each picture shows, in a sentence or two with numbers, for whoever does not see it.

Legend: C classes, N points of a map.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial import KDTree

from ltplugins.eval.scores import mean_std
from ltplugins.metrics.groups import GROUPS, rank_classes
from ltplugins.report.curves import is_course
from ltplugins.report.evaluated import RunResult
from ltplugins.report.looks import name_of
from ltplugins.report.sureness import confused_rows, sure_rows

Rows = Mapping[str, Sequence[RunResult]]
_MOST = 4  # rows that are told of


def of_cost(rows: Rows) -> str:
    """Which row took the least training, and which the most."""
    told = []
    for unit in ("hours", "steps"):
        means = {row: mean_std([r.cost.get(unit) for r in runs]).mean for row, runs in rows.items()}
        known = {row: mean for row, mean in means.items() if mean}
        if known:
            low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
            told.append(f"{low} took {known[low]:.3g} {unit}, {high} {known[high]:.3g}")
    return _joined(told, len(told))


def of_classes(rows: Rows, protocol: str) -> str:
    """Of accuracy against training images: the ends of the first run of each row."""
    told = []
    for row, members in _first(rows):
        entry = members.results.protocols.get(protocol)
        if entry is None:
            continue
        order = [c for c in rank_classes(members.class_counts) if entry.per_class[c] is not None]
        if order:
            ends = [(int(c), 100 * (entry.per_class[c] or 0.0)) for c in (order[0], order[-1])]
            names = [name_of(members, c) for c, _ in ends]
            told.append(
                f"{row}: {names[0]} with most training images {ends[0][1]:.0f} %, {names[1]} with "
                f"fewest {ends[1][1]:.0f} %"
            )
    return _joined(told, len(rows))


def of_taken(runs: Mapping[str, RunResult]) -> str:
    """Of the confusion of classes: the one that is most often mistaken."""
    told = []
    for row, run in runs.items():
        if run.taken is None:
            continue
        counts = np.asarray(run.taken, dtype=float)
        shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
        np.fill_diagonal(shares, 0)
        true, other = np.unravel_index(shares.argmax(), shares.shape)
        names = run.class_names or [f"class {c}" for c in range(len(counts))]
        told.append(
            f"{row}: most often {names[true]} is taken for {names[other]}, "
            f"{100 * shares[true, other]:.0f} %"
        )
    return _joined(told, len(told))


def of_groups(rows: Rows, rule: str, protocol: str) -> str:
    """Of the confusion of groups: where the tail goes."""
    told = []
    for row, entry in confused_rows(dict(rows), rule, protocol).items():  # type: ignore[arg-type]
        counts = (entry.confusion or {}).get(rule)
        few = counts[2] if counts is not None else []
        total = int(np.sum(few))
        if total:
            share = 100 * few[0] / total
            told.append(f"{row}: of the images of few, {share:.0f} % are taken for many")
    return _joined(told, len(told))


def of_sureness(rows: Rows, rule: str) -> str:
    """Of reliability: the calibration errors."""
    told = []
    for row, entry in sure_rows(dict(rows)).items():  # type: ignore[arg-type]
        found = entry.calibration.plain.get(rule) if entry.calibration else None
        errors = {g: found.error.get(g) for g in GROUPS} if found else {}
        known = [f"{g} {100 * e:.0f} %" for g, e in errors.items() if e is not None]
        if known:
            told.append(f"{row}: calibration error of {', '.join(known)}")
    return _joined(told, len(told))


def of_maps(runs: Sequence[RunResult], rule: str) -> str:
    """Of maps: how often a few-shot image's nearest neighbour there is of its own class."""
    told = []
    for run in runs:
        if run.embedding is None:
            continue
        points, targets = np.asarray(run.embedding), np.asarray(run.embedding_targets)
        few = np.isin(targets, run.results.groups[rule].few)
        if few.any() and len(points) > 1:
            nearest = KDTree(points).query(points[few], k=2)[1][:, 1]
            share = 100 * float((targets[nearest] == targets[few]).mean())
            told.append(
                f"{run.row_name}: of the few-shot images {share:.0f} % have one of their own class "
                "as nearest on the map"
            )
    return _joined(told, len(told))


def of_courses(rows: Rows, names: Sequence[str], of: str = "curves") -> str:
    """Of curves: where the first one begins and ends.

    Args:
        names: of the curves, the one that is told of first.
        of: the attribute that holds them.
    """
    for name in names:
        told = []
        for row, run in _first(rows):
            curve = getattr(run, of).get(name)
            if curve is not None and is_course(curve):
                told.append(f"{row} from {curve[1][0]:.3g} to {curve[1][-1]:.3g}")
        if told:
            return f"{name}, first epoch to last: {_joined(told, len(told))}"
    return ""


def _first(rows: Rows) -> list[tuple[str, RunResult]]:
    return [(row, members[0]) for row, members in rows.items()]


def _joined(told: Sequence[str], total: int) -> str:
    more = f"; and {total - _MOST} more rows" if len(told) > _MOST else ""
    return f"{'; '.join(told[:_MOST])}{more}." if told else ""
