# SPDX-License-Identifier: MIT
"""The evaluation protocols of a run: cached features in, scores out.

A protocol's name says what its number is: ``knn_k20_T0.07``, ``linear_100shot``, ``linear_full``;
``_trainset`` is appended where the long-tailed training images stand in for the balanced probe set.
``classifier`` is what a supervised method itself has learned to say: nothing is fitted for it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, AtLeast, Between, Length, Seed
from ltplugins.core.schema import Section
from ltplugins.eval.linear import C_GRID, Engine, ProbeResult, linear_probe
from ltplugins.eval.results import GroupMembers, ProtocolResult, Scores, Sizes
from ltplugins.eval.scores import score_repeats
from ltplugins.metrics.groups import RULES, class_hits, explain_missing, shot_groups
from ltplugins.metrics.knn import knn_predict

Bank = Literal["probe", "train"]
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


def evaluate_features(
    train_bank: Features | None,
    probe: Features | None,
    test: Features,
    class_counts: Sequence[int],
    cfg: EvalConfig,
    classifier: Callable[[Tensor], Tensor] | None = None,
) -> Scores:
    """Run every protocol of ``cfg`` and score it overall, per class and per shot group.

    Means are over probe seeds.

    Args:
        train_bank: the long-tailed training images; needed only by ``bank``/``fit_on: train``.
        probe: the balanced labelled set, disjoint from the test set.
        test: the test set; its labels are used for scoring only.
        class_counts: Int[C], training images per class, which define the groups.
        cfg: what to run.
        classifier: the run's own, Float[N D] -> Float[N C]; None = it has none.

    Raises:
        UserError: a set that a protocol needs is missing; everything the protocols refuse.
    """
    if not cfg.groups:
        raise UserError(f"eval.groups is empty: expected at least one of {', '.join(RULES)}.")
    counts = [int(count) for count in class_counts]
    groups: dict[str, dict[str, list[int]]]
    groups = {rule: shot_groups(counts, rule) for rule in cfg.groups}
    tested = class_hits(test.targets, test.targets, len(counts))[:, 1].tolist()
    sets = {"probe": probe, "train": train_bank}
    protocols: dict[str, ProtocolResult] = {}
    if cfg.classifier and classifier is not None:
        name, entry, preds = _run_classifier(classifier, test, counts)
        protocols[name] = ProtocolResult(**entry, **score_repeats([preds], test.targets, groups))
    if cfg.knn is not None:
        name, entry, preds = _run_knn(cfg.knn, _need(sets, cfg.knn.bank), test, len(counts))
        protocols[name] = ProtocolResult(**entry, **score_repeats([preds], test.targets, groups))
    if cfg.linear is not None:
        if not cfg.seeds:
            raise UserError("eval.seeds is empty: the linear probes need at least one seed.")
        bank = _need(sets, cfg.linear.fit_on)
        for shots in cfg.linear.shots:
            name, entry, probes = _run_linear(cfg.linear, shots, cfg.seeds, bank, test, len(counts))
            scores = score_repeats([p.preds for p in probes], test.targets, groups)
            protocols[name] = ProtocolResult(**entry, **scores)
    return Scores(
        protocols=protocols,
        groups={rule: GroupMembers(RULES[rule], **groups[rule]) for rule in groups},
        class_counts=counts,
        sizes=Sizes(
            train=sum(counts),
            probe=len(probe.targets) if probe is not None else 0,
            test=len(test.targets),
        ),
        notes=[line for rule in groups for line in explain_missing(groups[rule], tested, rule)],
    )


def _need(sets: dict[str, Features | None], which: str) -> Features:
    chosen = sets[which]
    if chosen is None:
        other = "train" if which == "probe" else "probe"
        raise UserError(
            f"the evaluation needs the {which} set's features, which this data set does not give; "
            f"set eval.knn.bank and eval.linear.fit_on to '{other}'."
        )
    return chosen


def _where(which: str, num_images: int) -> str:
    kind = "balanced probe set" if which == "probe" else "long-tailed training set"
    return f"the {kind} ({num_images:,} images)"


def _run_classifier(
    classifier: Callable[[Tensor], Tensor], test: Features, counts: Sequence[int]
) -> tuple[str, dict[str, Any], Tensor]:
    with torch.no_grad():
        preds = classifier(test.feats).argmax(dim=1)
    entry = {
        "kind": "classifier",
        "description": (
            f"the run's own classifier, learned with its features on the long-tailed training set "
            f"({sum(counts):,} images); nothing is fitted for the evaluation"
        ),
        "settings": {},
        "n_train": sum(counts),
        "seeds": [],
    }
    return "classifier", entry, preds.cpu()


def _run_knn(
    cfg: KnnConfig, bank: Features, test: Features, num_classes: int
) -> tuple[str, dict[str, Any], Tensor]:
    preds = knn_predict(
        *bank, test.feats, num_classes=num_classes, k=cfg.k, temperature=cfg.temperature
    )
    name = f"knn_k{cfg.k}_T{cfg.temperature:g}" + ("_trainset" if cfg.bank == "train" else "")
    description = (
        f"cosine-weighted kNN, k = {cfg.k}, T = {cfg.temperature:g}, "
        f"bank: {_where(cfg.bank, len(bank.targets))}"
    )
    settings = {"k": cfg.k, "temperature": cfg.temperature, "bank": cfg.bank}
    entry = {"kind": "knn", "description": description, "settings": settings}
    return name, entry | {"n_train": len(bank.targets), "seeds": []}, preds.cpu()


def _run_linear(
    cfg: LinearConfig,
    shots: int | str,
    seeds: Sequence[int],
    bank: Features,
    test: Features,
    num_classes: int,
) -> tuple[str, dict[str, Any], list[ProbeResult]]:
    count = shots if isinstance(shots, int) else None
    probes = [
        linear_probe(
            *bank,
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
    name = "linear_full" if count is None else f"linear_{count}shot"
    drawn = "all images" if count is None else f"{count} images per class"
    entry = {
        "kind": "linear",
        "description": (
            f"logistic regression on standardised frozen features, {drawn} of "
            f"{_where(cfg.fit_on, len(bank.targets))}, C chosen on "
            f"{cfg.val_fraction:.0%} of them, then fitted again on all"
        ),
        "settings": {"shots": shots, "fit_on": cfg.fit_on, "grid": cfg.grid, "engine": cfg.engine},
        "n_train": probes[0].n_train,
        "seeds": list(seeds),
        "chosen_c": [p.chosen_c for p in probes],
        "val_accuracy": [[p.val_accuracy.get(c) for c in sorted(cfg.grid)] for p in probes],
        "converged": [p.converged for p in probes],
    }
    return name + ("_trainset" if cfg.fit_on == "train" else ""), entry, probes
