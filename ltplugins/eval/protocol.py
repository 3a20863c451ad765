# SPDX-License-Identifier: MIT
"""The evaluation protocols of a run: cached features in, scores out.

A protocol's name says what its number is: ``knn_k20_T0.07``, ``linear_100shot``, ``linear_full``;
``_trainset`` is appended where the training images were asked for as bank. What a bank is, and how
many images of a class it has, is in the protocol's description.
``classifier`` is what a supervised method itself has learned to say: nothing is fitted for it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.eval.banks import BankImages, Features
from ltplugins.eval.options import EvalConfig
from ltplugins.eval.outcomes import Outcome, run_classifier, run_knn, run_linear
from ltplugins.eval.results import GroupMembers, ProtocolResult, Scores, Sizes
from ltplugins.eval.scores import score_repeats
from ltplugins.metrics.groups import GROUPS, RULES, class_hits, explain_missing, shot_groups

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
    words: Mapping[str, str] | None = None,
    absent: Mapping[str, str] | None = None,
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
        words: what ``probe`` and ``train`` are, for descriptions.
        absent: why ``probe`` or ``train`` is not there.

    Raises:
        UserError: ``cfg`` asks for nothing, test labels that cannot be scored, or no protocol of
            ``cfg`` can run.
    """
    if not cfg.groups:
        raise UserError(f"eval.groups is empty: expected at least one of {', '.join(RULES)}.")
    if cfg.linear is not None and not cfg.seeds:
        raise UserError("eval.seeds is empty: the linear probes need at least one seed.")
    known = class_counts is not None
    counts = [int(count) for count in class_counts or [0] * (num_classes or 0)]
    nobody: dict[str, list[int]] = {name: [] for name in GROUPS}
    groups: dict[str, dict[str, list[int]]]
    groups = {rule: shot_groups(counts, rule) if known else nobody for rule in cfg.groups}
    tested = class_hits(test.targets, test.targets, len(counts))[:, 1].tolist()
    banks = {
        name: BankImages(name, found, (words or {}).get(name, ""), (absent or {}).get(name, ""))
        for name, found in (("probe", probe), ("train", train_bank))
    }
    protocols: dict[str, ProtocolResult] = {}
    failed: dict[str, str] = {}
    for name, work in _protocols(cfg, banks, test, counts, classifier).items():
        try:
            entry, preds = work()
        except UserError as error:
            failed[name] = str(error)
            continue
        scores = score_repeats(preds, test.targets, groups, len(counts))
        protocols[name] = ProtocolResult(**entry, **scores)
    if failed and not protocols:
        raise UserError(next(iter(failed.values())))
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
        notes=notes if known else [_UNKNOWN],
    )


def _protocols(
    cfg: EvalConfig,
    banks: Mapping[str, "BankImages"],
    test: Features,
    counts: Sequence[int],
    classifier: Callable[[Tensor], Tensor] | None,
) -> dict[str, Callable[[], Outcome]]:
    """What ``cfg`` asks for, by name, to be run one by one."""
    work: dict[str, Callable[[], Outcome]] = {}
    if cfg.classifier and classifier is not None:
        work["classifier"] = partial(run_classifier, classifier, test, counts)
    knn, linear = cfg.knn, cfg.linear
    if knn is not None:
        name = f"knn_k{knn.k}_T{knn.temperature:g}{_suffix(knn.bank)}"
        work[name] = partial(run_knn, knn, banks[knn.bank], test, len(counts))
    for shots in linear.shots if linear is not None else ():
        assert linear is not None
        kind = "full" if shots == "full" else f"{shots}shot"
        bank = banks[linear.fit_on]
        work[f"linear_{kind}{_suffix(linear.fit_on)}"] = partial(
            run_linear, linear, shots, cfg.seeds, bank, test, len(counts)
        )
    return work


def _suffix(bank: str) -> str:
    return "_trainset" if bank == "train" else ""
