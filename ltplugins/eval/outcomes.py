# SPDX-License-Identifier: MIT
"""One protocol at a time: what it is, in words and settings, and what it predicts.

Legend: N test images, D dim, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ltplugins.eval.banks import BankImages, Features
from ltplugins.eval.linear import ProbeResult, linear_probe
from ltplugins.eval.options import KnnConfig, LinearConfig
from ltplugins.metrics.confidence import Predictions, top_class
from ltplugins.metrics.knn import iter_votes

# What a protocol is, and its predictions by seed.
Outcome = tuple[dict[str, Any], list[Predictions]]


def run_classifier(
    classifier: Callable[[Tensor], Tensor], test: Features, counts: Sequence[int]
) -> Outcome:
    """What the run's own classifier says."""
    with torch.no_grad():
        found = top_class(torch.softmax(classifier(test.feats), dim=1))
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
    return entry, [found]


def run_knn(cfg: KnnConfig, k: int, bank: BankImages, test: Features, num_classes: int) -> Outcome:
    """The vote of ``k`` neighbours among the bank's images."""
    found = bank.get()
    votes = iter_votes(
        *found, test.feats, num_classes=num_classes, k=k, temperature=cfg.temperature
    )
    parts = [top_class(shares) for shares in votes]
    joined = Predictions(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    description = f"cosine-weighted kNN, k = {k}, T = {cfg.temperature:g}, bank: {bank.describe()}"
    settings = {"k": k, "temperature": cfg.temperature, "bank": cfg.bank}
    entry = {"kind": "knn", "description": description, "settings": settings}
    return entry | {"n_train": len(found.targets), "seeds": []}, [joined]


def run_linear(
    cfg: LinearConfig,
    shots: float | str,
    seeds: Sequence[int],
    bank: BankImages,
    test: Features,
    num_classes: int,
) -> Outcome:
    """A linear probe for each seed; one alone where every draw takes the same images.

    Args:
        shots: images of each class, a share of them below 1, or "full".
    """
    found = bank.get()
    count = None if isinstance(shots, str) else shots
    sizes = torch.bincount(found.targets, minlength=num_classes)
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
            places=bank.places,
        )
        for seed in seeds
    ]
    drawn = "all images" if count is None else f"{'all ' if is_all else ''}{count} images per class"
    if count is not None and count < 1:
        drawn = f"{100 * count:g}% of the images of each class"
    settings = {"shots": shots, "fit_on": cfg.fit_on, "engine": cfg.engine, **_fitting(cfg)}
    words = f"{drawn} of {bank.describe()}"
    entry = _of_probes(cfg, probes, seeds, words, settings, bank)
    return entry, [p.found for p in probes]


def run_linear_lt(
    cfg: LinearConfig, tau: float, seed: int, bank: BankImages, test: Features, num_classes: int
) -> Outcome:
    """A probe of the training set as it is; there is nothing to draw and so nothing to repeat.

    Args:
        cfg: gives grid, val_fraction and max_iter.
        tau: of the logit adjustment, 0 = none.
    """
    probe = linear_probe(
        *bank.get(),
        test.feats,
        num_classes=num_classes,
        seed=seed,
        grid=cfg.grid,
        val_fraction=cfg.val_fraction,
        max_iter=cfg.max_iter,
        engine="torch",
        adjust=tau,
        places=bank.places,
    )
    loss = f"logit-adjusted loss (tau = {tau:g})" if tau else "plain loss"
    words = f"all images of {bank.describe()}, {loss}"
    settings = {"tau": tau, "fit_on": "train", "engine": "torch", **_fitting(cfg)}
    return _of_probes(cfg, [probe], [seed], words, settings, bank), [probe.found]


def _fitting(cfg: LinearConfig) -> dict[str, Any]:
    """How C is chosen and a probe fitted."""
    return {"grid": cfg.grid, "val_fraction": cfg.val_fraction, "max_iter": cfg.max_iter}


def _of_probes(
    cfg: LinearConfig,
    probes: Sequence[ProbeResult],
    seeds: Sequence[int],
    words: str,
    settings: dict[str, Any],
    bank: BankImages,
) -> dict[str, Any]:
    """What probes are, by the fields of a ``ProtocolResult``."""
    held_out = "" if bank.places is None else " (whole places)"
    return {
        "kind": "linear",
        "description": (
            f"logistic regression on standardised frozen features, {words}, C chosen on "
            f"{cfg.val_fraction:.0%} of them{held_out}, then fitted again on all"
        ),
        "settings": settings,
        "n_train": probes[0].n_train,
        "seeds": list(seeds),
        "chosen_c": [p.chosen_c for p in probes],
        "val_accuracy": [[p.val_accuracy.get(c) for c in sorted(cfg.grid)] for p in probes],
        "converged": [p.converged for p in probes],
    }
