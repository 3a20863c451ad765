# SPDX-License-Identifier: MIT
"""From predictions to the numbers of ``results.json``: accuracies, averaged over repetitions.

Legend: N test images, C classes.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ltplugins.eval.results import Stat
from ltplugins.metrics.calibration import group_confusion
from ltplugins.metrics.confidence import Predictions, ece, group_ece
from ltplugins.metrics.groups import GROUPS, GroupAccuracy, group_accuracy

COMMON = ("overall", "balanced", "class_std", "harmonic", "min_class")
GROUPED = ("many", "medium", "few", "group_std")
Groups = Mapping[str, Mapping[str, list[int]]]


def score_repeats(
    found: Sequence[Predictions], targets: Tensor, groups: Groups, num_classes: int
) -> dict[str, Any]:
    """Score each repetition of a protocol under each rule, and average over the repetitions.

    Args:
        found: of N images each, one entry per probe seed.
        targets: Int[N].
        groups: rule -> "many", "medium" and "few" -> class ids; all empty = not known.
        num_classes: C.

    Returns:
        ``n`` repetitions, the numbers of COMMON, those of GROUPED under ``groups`` by rule,
        ``per_class``, the mean accuracy or None of each class, and those of
        :func:`_trust`: what a ``ProtocolResult`` holds beside its description.
    """
    targets = targets.cpu()
    scores = {
        rule: [group_accuracy(one.preds, targets, members, num_classes) for one in found]
        for rule, members in groups.items()
    }
    first = next(iter(scores.values()))
    return {
        "n": len(found),
        **{key: _stat(first, key) for key in COMMON},
        "groups": {
            rule: {key: _stat(repeats, key) for key in GROUPED} for rule, repeats in scores.items()
        },
        "per_class": [
            None if values[0] is None else statistics.fmean(values)  # type: ignore[arg-type]
            for values in zip(*(score.per_class for score in first), strict=True)
        ],
        **_trust(found, targets, groups),
    }


def _trust(found: Sequence[Predictions], targets: Tensor, groups: Groups) -> dict[str, Any]:
    """``ece``, and by rule, where the groups are known, ``group_ece`` and ``confusion``."""
    errors: dict[str, dict[str, Stat]] = {}
    taken: dict[str, list[list[int]]] = {}
    for rule, members in groups.items():
        if not any(members.values()):
            continue
        each = [group_ece(one, targets, members) for one in found]
        errors[rule] = {name: mean_std([one[name] for one in each]) for name in GROUPS}
        tables = [torch.tensor(group_confusion(one.preds, targets, members)) for one in found]
        taken[rule] = torch.stack(tables).sum(dim=0).tolist()
    return {
        "ece": mean_std([ece(one, targets) for one in found]),
        "group_ece": errors,
        "confusion": taken,
    }


def _stat(scores: Sequence[GroupAccuracy], key: str) -> Stat:
    return mean_std([getattr(score, key) for score in scores])


def mean_std(values: Sequence[float | None]) -> Stat:
    """Mean and spread of the values that are known; None where there is nothing to average."""
    known = [value for value in values if value is not None]
    return Stat(
        mean=statistics.fmean(known) if known else None,
        std=statistics.stdev(known) if len(known) > 1 else None,
        n=len(known),
    )
