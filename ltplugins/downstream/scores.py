# SPDX-License-Identifier: MIT
"""What a fine-tuned classifier says of the test images, as ``results.json`` has it.

Legend: N images, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltplugins.downstream.losses import post_hoc_adjusted
from ltplugins.downstream.options import FinetuneConfig
from ltplugins.eval.results import (
    Calibration,
    GroupMembers,
    ProtocolResult,
    Reliability,
    Scores,
    Sizes,
)
from ltplugins.eval.scores import score_repeats
from ltplugins.metrics.calibration import (
    calibration_error,
    fit_temperature,
    reliability,
)
from ltplugins.metrics.confidence import top_class
from ltplugins.metrics.groups import GROUPS, RULES, class_hits, explain_missing, shot_groups

PROTOCOL = "classifier"  # beside those that a supervised method has learned
_RULES = ("tercile", "threshold")  # reports show the first that all runs have
Labelled = tuple[Tensor, Tensor]  # Float[N C] logits and Int[N] targets
Groups = Mapping[str, Mapping[str, list[int]]]


def score(
    test: Labelled,
    held_out: Labelled,
    fit_counts: Tensor,
    class_counts: Sequence[int],
    options: FinetuneConfig,
    tau: float | None = None,
) -> Scores:
    """Accuracy, calibration and confusion by group; the temperature is of the held-out images.

    Args:
        fit_counts: Int[C], images that the classifier was trained on, for post-hoc adjustment.
        class_counts: Int[C], all training images, which make the groups.
        tau: that a tau-normalised classifier has.
    """
    logits, targets = _adjusted(test, fit_counts, options)
    groups = {rule: shot_groups(class_counts, rule) for rule in _RULES}
    tested = class_hits(targets, targets, len(class_counts))[:, 1].tolist()
    n_fit = int(fit_counts.sum())
    entry = ProtocolResult(
        kind=PROTOCOL,
        description=describe(options, n_fit, len(held_out[1])),
        settings=_settings(options, tau),
        n_train=n_fit,
        seeds=[],
        **score_repeats([top_class(F.softmax(logits, dim=1))], targets, groups, len(class_counts)),
        calibration=_calibrate(logits, targets, _adjusted(held_out, fit_counts, options), groups),
    )
    return Scores(
        protocols={PROTOCOL: entry},
        groups={rule: GroupMembers(RULES[rule], **of) for rule, of in groups.items()},
        class_counts=list(class_counts),
        test_counts=tested,
        sizes=Sizes(train=sum(class_counts), probe=0, test=len(targets)),
        notes=explain_missing(groups[_RULES[0]], tested, _RULES[0]),
    )


def _adjusted(labelled: Labelled, counts: Tensor, options: FinetuneConfig) -> Labelled:
    logits, targets = labelled
    if options.post_hoc_tau == 0:
        return labelled
    return post_hoc_adjusted(logits, counts, tau=options.post_hoc_tau), targets


def _calibrate(logits: Tensor, targets: Tensor, held_out: Labelled, groups: Groups) -> Calibration:
    temperature = fit_temperature(*held_out)
    return Calibration(
        temperature=temperature,
        n=len(held_out[1]),
        plain=_reliability(logits, targets, groups),
        scaled=_reliability(logits / temperature, targets, groups),
    )


def _reliability(logits: Tensor, targets: Tensor, groups: Groups) -> dict[str, Reliability]:
    probs = F.softmax(logits.double(), dim=1)
    found = {}
    for rule, members in groups.items():
        chosen = {"overall": torch.ones_like(targets, dtype=torch.bool)}
        chosen |= {name: torch.isin(targets, torch.tensor(members[name])) for name in GROUPS}
        bins = {name: reliability(probs[of], targets[of]) for name, of in chosen.items()}
        error = {name: calibration_error(table) for name, table in bins.items()}
        found[rule] = Reliability(error, bins)
    return found


def describe(options: FinetuneConfig, n_fit: int, n_held_out: int) -> str:
    """What the classifier is, in a sentence without its full stop."""
    what = {
        "linear": "a classifier trained on the frozen backbone",
        "full": "classifier and backbone trained together",
        "lp_ft": "the classifier trained on the frozen backbone, then both together",
        "lora": "the classifier trained with low-rank adapters of the backbone",
    }[options.mode]
    after = f", logits adjusted by tau = {options.post_hoc_tau:g}" if options.post_hoc_tau else ""
    return (
        f"{what} ({options.mode}; head {options.head}, loss {_loss(options)}{after}), on "
        f"{n_fit:,} training images; {n_held_out:,} more were held out to choose by"
    )


def _loss(options: FinetuneConfig) -> str:
    loss = options.loss
    extra: dict[str, str] = {
        "logit_adjusted": f", tau = {loss.tau:g}",
        "focal": f", gamma = {loss.gamma:g}",
        "ldam": f", margin {loss.margin:g}",
    }
    return loss.name + extra.get(loss.name, "")


def _settings(options: FinetuneConfig, tau: float | None) -> dict[str, Any]:
    shown = ("mode", "head", "post_hoc_tau", "epochs")
    chosen = {} if tau is None else {"tau": tau}
    return {**{key: getattr(options, key) for key in shown}, "loss": options.loss.name, **chosen}
