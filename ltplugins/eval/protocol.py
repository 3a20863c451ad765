# SPDX-License-Identifier: MIT
"""The evaluation of a run: cached features in, scores out; ``plan`` says which protocols run."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.eval.banks import BankImages, Features
from ltplugins.eval.options import EvalConfig
from ltplugins.eval.plan import Material, Plan, make_plan, require_protocols
from ltplugins.eval.results import GroupMembers, ProtocolResult, Scores, Sizes
from ltplugins.eval.scores import score_repeats
from ltplugins.metrics.groups import GROUPS, RULES, class_hits, explain_missing, shot_groups

log = logging.getLogger(__name__)
_UNKNOWN = (
    "many, medium and few are n/a: the training images have no labels, so nobody knows which "
    "classes are rare in them."
)


def evaluate_features(
    train_bank: Features | None,
    probe: Features | None,
    test: Features,
    class_counts: Sequence[int] | None,
    cfg: EvalConfig,
    classifier: Callable[[Tensor], Tensor] | None = None,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    words: Mapping[str, str] | None = None,
    absent: Mapping[str, str] | None = None,
    places: Mapping[str, np.ndarray] | None = None,
) -> Scores:
    """Run every protocol of ``cfg`` and score it overall, per class and per shot group.

    Means are over probe seeds. A protocol that cannot run takes no other with it: why is said in
    ``failed``.

    Args:
        train_bank: the training images; needed only by ``bank``/``fit_on: train``.
        probe: the labelled set, disjoint from the test set.
        test: the test set; its labels are used for scoring only.
        class_counts: Int[C], training images per class, which define the groups; None where they
            are not known, and then every group is n/a.
        cfg: what to run.
        classifier: the run's own, Float[N D] -> Float[N C]; None = it has none.
        num_classes: C, where ``class_counts`` does not say it.
        class_names: by class id, for notes.
        words: what ``probe`` and ``train`` are, for descriptions.
        absent: why ``probe`` or ``train`` is not there.
        places: of the images of ``probe`` or ``train``, see ``BankImages``.

    Raises:
        UserError: ``cfg`` asks for nothing, test labels that cannot be scored, or no protocol of
            ``cfg`` can run.
    """
    _require(cfg)
    require_protocols(cfg, classifier is not None)
    known = class_counts is not None
    counts = [int(count) for count in class_counts or [0] * (num_classes or 0)]
    nobody: dict[str, list[int]] = {name: [] for name in GROUPS}
    groups: dict[str, dict[str, list[int]]]
    groups = {rule: shot_groups(counts, rule) if known else nobody for rule in cfg.groups}
    tested = class_hits(test.targets, test.targets, len(counts))[:, 1].tolist()
    banks = {
        name: BankImages(
            name,
            found,
            (words or {}).get(name, ""),
            (absent or {}).get(name, ""),
            (places or {}).get(name),
        )
        for name, found in (("probe", probe), ("train", train_bank))
    }
    plan = make_plan(cfg, Material(banks, test, counts, class_names), classifier)
    for note in plan.notes:
        log.info("%s", note)
    protocols, failed = _run(plan, test, groups, len(counts))
    notes = [line for rule in groups for line in explain_missing(groups[rule], tested, rule)]
    return Scores(
        protocols=protocols,
        failed=failed,
        groups={rule: GroupMembers(RULES[rule], **groups[rule]) for rule in groups},
        class_counts=counts,
        test_counts=tested,
        sizes=Sizes(
            train=sum(counts),
            probe=len(probe.targets) if probe is not None else 0,
            test=len(test.targets),
        ),
        notes=[*(notes if known else [_UNKNOWN]), *plan.notes, *cfg.remarks],
    )


def _require(cfg: EvalConfig) -> None:
    if not cfg.groups:
        raise UserError(f"eval.groups is empty: expected at least one of {', '.join(RULES)}.")
    if (cfg.linear or cfg.linear_lt) and not cfg.seeds:
        raise UserError("eval.seeds is empty: the linear probes need at least one seed.")


def _run(
    plan: Plan, test: Features, groups: Mapping[str, dict[str, list[int]]], num_classes: int
) -> tuple[dict[str, ProtocolResult], dict[str, str]]:
    """The protocols that came through, and why the others did not.

    Raises:
        UserError: none did.
    """
    protocols: dict[str, ProtocolResult] = {}
    failed: dict[str, str] = {}
    for name, work in plan.work.items():
        try:
            entry, preds = work()
        except UserError as error:
            failed[name] = str(error)
            continue
        scores = score_repeats(preds, test.targets, groups, num_classes)
        protocols[name] = ProtocolResult(**entry, **scores)
    if failed and not protocols:
        raise UserError(next(iter(failed.values())))
    return protocols, failed
