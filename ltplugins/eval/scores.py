# SPDX-License-Identifier: MIT
"""From predictions to the numbers of ``results.json``: accuracies, averaged over repetitions.

Legend: N test images, C classes.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ltplugins.eval.results import Stat
from ltplugins.metrics.groups import GroupAccuracy, group_accuracy

COMMON = ("overall", "balanced", "class_std")
GROUPED = ("many", "medium", "few", "group_std")


def score_repeats(
    preds: Sequence[Tensor],
    targets: Tensor,
    groups: Mapping[str, Mapping[str, list[int]]],
    num_classes: int,
) -> dict[str, Any]:
    """Score each repetition of a protocol under each rule, and average over the repetitions.

    Args:
        preds: Int[N] each, predicted classes, one entry per probe seed.
        targets: Int[N].
        groups: rule -> "many", "medium" and "few" -> class ids; all empty = not known.
        num_classes: C.

    Returns:
        ``n`` repetitions, the numbers of COMMON, those of GROUPED under ``groups`` by rule, and
        ``per_class``, the mean accuracy or None of each class: what a ``ProtocolResult`` holds
        beside its description.
    """
    targets = targets.cpu()
    scores = {
        rule: [group_accuracy(p, targets, members, num_classes) for p in preds]
        for rule, members in groups.items()
    }
    first = next(iter(scores.values()))
    return {
        "n": len(preds),
        **{key: _stat(first, key) for key in COMMON},
        "groups": {
            rule: {key: _stat(repeats, key) for key in GROUPED} for rule, repeats in scores.items()
        },
        "per_class": [
            None if values[0] is None else statistics.fmean(values)  # type: ignore[arg-type]
            for values in zip(*(score.per_class for score in first), strict=True)
        ],
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
