# SPDX-License-Identifier: MIT
"""What is shown of runs' images, and of which rows: chosen by rules that know no result.

Legend: G images of a gallery, C classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ltplugins.eval.gallery import Gallery
from ltplugins.metrics.groups import rank_classes
from ltplugins.report.cells import proportion_error
from ltplugins.report.evaluated import RunResult

Rows = Mapping[str, Sequence[RunResult]]
MOST_CLASSES = 40  # beyond which a strip shows the ends alone
_HEAD, _TAIL = 10, 30  # and how many of each
_FACES = 3  # pictures of a class
_TWO_SIDED = 1.96


@dataclass(frozen=True)
class ClassLook:
    """A class in the strip.

    Attributes:
        label: its id; group: ``many``, ``medium`` or ``few``; count: training images.
        faces: uint8 [n S S 3], test images.
        base, other: mean accuracies as fractions; None = n/a.
        reach: what a difference must exceed on so many test images to say something.
    """

    label: int
    name: str
    group: str
    count: int
    faces: np.ndarray
    base: float | None
    other: float | None
    reach: float

    @property
    def difference(self) -> float | None:
        """Of the other row to the baseline."""
        return None if self.base is None or self.other is None else self.other - self.base


def name_of(run: RunResult, label: int) -> str:
    """A class's name, or its number."""
    return run.class_names[label] if run.class_names else f"class {label}"


def class_looks(
    rows: Rows, protocol: str, rule: str, baseline: str, other: str | None
) -> tuple[list[ClassLook], int]:
    """The classes of the baseline's first run, most training images first, and over how many pairs.

    Accuracies are means over the pairs whose classes have the same counts as its own.

    Args:
        other: row; None = the baseline alone.
    """
    run = rows[baseline][0]
    pairs = _pairs(rows, baseline, other)
    groups = run.results.groups.get(rule)
    of = {c: g for g in ("many", "medium", "few") for c in (groups.of(g) if groups else ())}
    looks = []
    for c in _shown(run):
        base = _mean([_accuracy(ours, protocol, c) for ours, _ in pairs])
        theirs = _mean([_accuracy(one, protocol, c) for _, one in pairs if one is not None])
        images = len(pairs) * (run.results.test_counts or [0] * len(run.class_counts))[c]
        errors = [proportion_error(base, images), proportion_error(theirs, images)]
        faces = _faces(run.gallery, c)
        name, count = name_of(run, c), run.class_counts[c]
        reach = _TWO_SIDED * math.hypot(*errors)
        looks.append(ClassLook(c, name, of.get(c, ""), count, faces, base, theirs, reach))
    return looks, len(pairs)


def _pairs(
    rows: Rows, baseline: str, other: str | None
) -> list[tuple[RunResult, RunResult | None]]:
    """The baseline's runs on its first run's counts, each with its partner of the other row."""
    first = rows[baseline][0]
    same = [run for run in rows[baseline] if run.class_counts == first.class_counts]
    if other is None:
        return [(run, None) for run in same]
    partners = {run.pair_key: run for run in rows[other] if run.pair_key is not None}
    found: list[tuple[RunResult, RunResult | None]]
    found = [(run, partners[run.pair_key]) for run in same if run.pair_key in partners]
    return found or [(first, None)]


def _shown(run: RunResult) -> list[int]:
    order = [int(c) for c in rank_classes(run.class_counts)]
    return order if len(order) <= MOST_CLASSES else order[:_HEAD] + order[-_TAIL:]


def _accuracy(run: RunResult, protocol: str, label: int) -> float | None:
    entry = run.results.protocols.get(protocol)
    return None if entry is None else entry.per_class[label]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _faces(gallery: Gallery | None, label: int) -> np.ndarray:
    if gallery is None:
        return np.zeros((0, 1, 1, 3), dtype=np.uint8)
    return gallery.images[gallery.targets == label][:_FACES]


def comparable(rows: Rows, baseline: str) -> dict[str, RunResult]:
    """A run of each row on one pair, whose galleries are of the same images and have votes.

    The pair is the one that most rows have a run of, the baseline's first where that leaves a
    choice; nothing where the baseline has no gallery.
    """
    best: dict[str, RunResult] = {}
    for own in rows[baseline]:
        if own.gallery is None or not len(own.gallery.preds):
            continue
        found = {baseline: own}
        for row, members in rows.items():
            for run in members:
                if row not in found and _same_images(own, run):
                    found[row] = run
        if len(found) > len(best):
            best = found
    order = [row for row in rows if row in best]
    return {row: best[row] for row in order}


def _same_images(one: RunResult, other: RunResult) -> bool:
    a, b = one.gallery, other.gallery
    if a is None or b is None or one.pair_key is None or one.pair_key != other.pair_key:
        return False
    return len(b.preds) == len(a.preds) and np.array_equal(a.places, b.places)


def alone_right(runs: Mapping[str, RunResult]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Rows of the gallery that one row's vote alone gets right, and how many all, some, none do.

    Args:
        runs: as :func:`comparable` finds them.

    Returns:
        Int[n] by row, images of rare classes first; counts by ``all`` and ``none``.
    """
    first = next(iter(runs.values()))
    assert first.gallery is not None
    hits = np.stack([run.gallery.preds == run.gallery.targets for run in runs.values()])  # type: ignore[union-attr]
    rarity = np.argsort(rank_classes(first.class_counts))[first.gallery.targets]
    votes = hits.sum(axis=0)
    found = {}
    for row, own in zip(runs, hits, strict=True):
        places = np.flatnonzero(own & (votes == 1))
        found[row] = places[np.argsort(-rarity[places], kind="stable")]
    return found, {"all": int((votes == len(hits)).sum()), "none": int((votes == 0).sum())}
