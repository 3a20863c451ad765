# SPDX-License-Identifier: MIT
"""The evaluation protocols of a run: cached features in, scores out.

A protocol's name says what its number is: ``knn_k20_T0.07``, ``linear_100shot``, ``linear_full``;
``_trainset`` is appended where the training images were asked for as bank. What a bank is, and how
many images of a class it has, is in the protocol's description.
``classifier`` is what a supervised method itself has learned to say: nothing is fitted for it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, AtLeast, Between, Length, Seed
from ltplugins.core.schema import Section
from ltplugins.eval.linear import C_GRID, Engine, linear_probe
from ltplugins.eval.results import GroupMembers, ProtocolResult, Scores, Sizes
from ltplugins.eval.scores import score_repeats
from ltplugins.metrics.groups import GROUPS, RULES, class_hits, explain_missing, shot_groups
from ltplugins.metrics.knn import knn_predict

Bank = Literal["probe", "train"]
Outcome = tuple[dict[str, Any], list[Tensor]]  # what a protocol is, and its predictions by seed
_UNKNOWN = (
    "many, medium and few are n/a: the training images have no labels, so nobody knows which "
    "classes are rare in them."
)
GroupRule = Literal["threshold", "tercile"]


class Features(NamedTuple):
    """Float[N D] features and their Int[N] targets, 0..C-1."""

    feats: Tensor
    targets: Tensor


@dataclass
class KnnConfig(Section):
    """``k`` neighbours vote with exp(cosine / temperature); ``bank`` says among which images."""

    k: Annotated[int, AtLeast(1)] = 20
    temperature: Annotated[float, Above(0)] = 0.07
    bank: Bank = "probe"


@dataclass
class LinearConfig(Section):
    """One probe for each entry of ``shots``: images per class, or "full" for all of ``fit_on``.

    n-shot draws and the full probe come from ``fit_on``; see `linear_probe` for the rest.
    """

    shots: list[Annotated[int, AtLeast(1)] | Literal["full"]] = field(
        default_factory=lambda: [100, "full"]
    )
    fit_on: Bank = "probe"
    grid: Annotated[list[Annotated[float, Above(0)]], Length(1, math.inf)] = field(
        default_factory=lambda: list(C_GRID)
    )
    val_fraction: Annotated[float, Between(0, 1)] = 0.2
    max_iter: Annotated[int, AtLeast(1)] = 500
    engine: Engine = "sklearn"


@dataclass
class EvalConfig(Section):
    """The ``eval`` section. ``knn: null`` or ``linear: null`` leaves a protocol out.

    ``classifier`` concerns runs of methods with a classifier of their own; others have no such row.
    ``groups`` lists the rules for many/medium/few; reports show the first. ``seeds`` are those of
    the probes (draw and validation split), not the run's.
    """

    knn: KnnConfig | None = field(default_factory=KnnConfig)
    linear: LinearConfig | None = field(default_factory=LinearConfig)
    classifier: bool = True
    groups: list[GroupRule] = field(default_factory=lambda: ["tercile"])
    seeds: list[Seed] = field(default_factory=lambda: [0, 1, 2])

    def banks(self) -> set[Bank]:
        """What images are compared with."""
        found: set[Bank] = {self.knn.bank} if self.knn is not None else set()
        return found | ({self.linear.fit_on} if self.linear is not None else set())


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
        name: _Bank(name, found, (words or {}).get(name, ""), (absent or {}).get(name, ""))
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
    banks: Mapping[str, "_Bank"],
    test: Features,
    counts: Sequence[int],
    classifier: Callable[[Tensor], Tensor] | None,
) -> dict[str, Callable[[], Outcome]]:
    """What ``cfg`` asks for, by name, to be run one by one."""
    work: dict[str, Callable[[], Outcome]] = {}
    if cfg.classifier and classifier is not None:
        work["classifier"] = partial(_run_classifier, classifier, test, counts)
    knn, linear = cfg.knn, cfg.linear
    if knn is not None:
        name = f"knn_k{knn.k}_T{knn.temperature:g}{_suffix(knn.bank)}"
        work[name] = partial(_run_knn, knn, banks[knn.bank], test, len(counts))
    for shots in linear.shots if linear is not None else ():
        assert linear is not None
        kind = "full" if shots == "full" else f"{shots}shot"
        bank = banks[linear.fit_on]
        work[f"linear_{kind}{_suffix(linear.fit_on)}"] = partial(
            _run_linear, linear, shots, cfg.seeds, bank, test, len(counts)
        )
    return work


def _suffix(bank: str) -> str:
    return "_trainset" if bank == "train" else ""


@dataclass(frozen=True)
class _Bank:
    """Images that others are compared with.

    Attributes:
        name: ``probe`` or ``train``.
        features: theirs; None where they are not there.
        what: they are, in words; empty = said by their name.
        absent: why they are not there.
    """

    name: str
    features: Features | None
    what: str = ""
    absent: str = ""

    def get(self) -> Features:
        """Their features.

        Raises:
            UserError: they are not there.
        """
        if self.features is not None:
            return self.features
        other = "train" if self.name == "probe" else "probe"
        raise UserError(
            self.absent
            or f"the evaluation needs the {self.name} set's features, which this data set does not "
            f"give; set eval.knn.bank and eval.linear.fit_on to '{other}'."
        )

    def describe(self) -> str:
        """What they are, how many, and whether their classes are of one size."""
        sizes = torch.bincount(self.get().targets)
        sizes = sizes[sizes > 0]
        low, high, total = int(sizes.min()), int(sizes.max()), int(sizes.sum())
        what = self.what or ("probe set" if self.name == "probe" else "training set")
        if low == high:
            return f"the balanced {what} ({total:,} images)"
        tail = "long-tailed " if self.name == "train" else ""
        return f"the {tail}{what} ({total:,} images), {low:,} to {high:,} a class"


def _run_classifier(
    classifier: Callable[[Tensor], Tensor], test: Features, counts: Sequence[int]
) -> Outcome:
    with torch.no_grad():
        preds = classifier(test.feats).argmax(dim=1)
    entry = {
        "kind": "classifier",
        "description": (
            f"the run's own classifier, learned with its features on the training set "
            f"({sum(counts):,} images); nothing is fitted for the evaluation"
        ),
        "settings": {},
        "n_train": sum(counts),
        "seeds": [],
    }
    return entry, [preds.cpu()]


def _run_knn(cfg: KnnConfig, bank: _Bank, test: Features, num_classes: int) -> Outcome:
    found = bank.get()
    preds = knn_predict(
        *found, test.feats, num_classes=num_classes, k=cfg.k, temperature=cfg.temperature
    )
    description = (
        f"cosine-weighted kNN, k = {cfg.k}, T = {cfg.temperature:g}, bank: {bank.describe()}"
    )
    settings = {"k": cfg.k, "temperature": cfg.temperature, "bank": cfg.bank}
    entry = {"kind": "knn", "description": description, "settings": settings}
    return entry | {"n_train": len(found.targets), "seeds": []}, [preds.cpu()]


def _run_linear(
    cfg: LinearConfig,
    shots: int | str,
    seeds: Sequence[int],
    bank: _Bank,
    test: Features,
    num_classes: int,
) -> Outcome:
    found = bank.get()
    count = shots if isinstance(shots, int) else None
    sizes = torch.bincount(found.targets, minlength=num_classes)
    # Where every draw takes the same images there is nothing to repeat.
    is_all = count is None or bool((sizes == count).all())
    seeds = seeds[:1] if is_all else seeds
    probes = [
        linear_probe(
            *found,
            test.feats,
            num_classes=num_classes,
            shots=count,
            seed=seed,
            grid=cfg.grid,
            val_fraction=cfg.val_fraction,
            max_iter=cfg.max_iter,
            engine=cfg.engine,
        )
        for seed in seeds
    ]
    drawn = "all images" if count is None else f"{'all ' if is_all else ''}{count} images per class"
    entry = {
        "kind": "linear",
        "description": (
            f"logistic regression on standardised frozen features, {drawn} of {bank.describe()}, "
            f"C chosen on {cfg.val_fraction:.0%} of them, then fitted again on all"
        ),
        "settings": {"shots": shots, "fit_on": cfg.fit_on, "grid": cfg.grid, "engine": cfg.engine},
        "n_train": probes[0].n_train,
        "seeds": list(seeds),
        "chosen_c": [p.chosen_c for p in probes],
        "val_accuracy": [[p.val_accuracy.get(c) for c in sorted(cfg.grid)] for p in probes],
        "converged": [p.converged for p in probes],
    }
    return entry, [p.preds for p in probes]
