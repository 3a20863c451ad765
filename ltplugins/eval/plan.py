# SPDX-License-Identifier: MIT
"""Which protocols an evaluation runs: their names, which say what their numbers are.

``knn_k20_T0.07``, ``linear_100shot``, ``linear_1percent``, ``linear_full``; ``_trainset`` is
appended where the training images were asked for as bank. What a bank is, and how many images of a
class it has, is in the protocol's description. ``linear_lt`` is fitted on the long-tailed training
set as it is, ``linear_lt_tau1`` with logits adjusted by its class shares. ``classifier`` is what a
supervised method itself has learned to say: nothing is fitted for it.

Legend: N test images, D dim, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.eval.adapt import settle_neighbours, settle_shots
from ltplugins.eval.banks import BankImages, Features
from ltplugins.eval.options import EvalConfig, KnnConfig, LinearConfig
from ltplugins.eval.outcomes import (
    Outcome,
    run_classifier,
    run_knn,
    run_linear,
    run_linear_lt,
)


@dataclass
class Plan:
    """What is to be run.

    Attributes:
        work: by name, to be called one by one.
        notes: where a protocol is not the usual one, and why.
    """

    work: dict[str, Callable[[], Outcome]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Material:
    """What protocols work on.

    Attributes:
        banks: by ``probe`` and ``train``.
        test: the test set.
        counts: Int[C], training images by class id.
        names: of the classes; empty = their ids.
    """

    banks: Mapping[str, BankImages]
    test: Features
    counts: Sequence[int]
    names: Sequence[str] = ()


def make_plan(
    cfg: EvalConfig, found: Material, classifier: Callable[[Tensor], Tensor] | None
) -> Plan:
    """What ``cfg`` asks for; what nobody has said a number of is fitted to the data."""
    plan = Plan()
    if cfg.classifier and classifier is not None:
        plan.work["classifier"] = partial(run_classifier, classifier, found.test, found.counts)
    if cfg.knn is not None:
        _add_knn(plan, cfg.knn, found)
    if cfg.linear is not None:
        _add_linear(plan, cfg.linear, cfg.seeds, found)
    for tau in cfg.linear_lt or ():
        plan.work[f"linear_lt{f'_tau{tau:g}' if tau else ''}"] = partial(
            run_linear_lt,
            cfg.linear or LinearConfig(),
            tau,
            cfg.seeds[0],
            found.banks["train"],
            found.test,
            len(found.counts),
        )
    return plan


def require_protocols(cfg: EvalConfig, has_classifier: bool) -> None:
    """Refuse an evaluation that has nothing to say.

    Raises:
        UserError: ``cfg`` asks for no protocol that the run has.
    """
    if cfg.knn or cfg.linear or cfg.linear_lt or (cfg.classifier and has_classifier):
        return
    raise UserError(
        "eval: expected a protocol, got none: knn, linear and linear_lt are null, and the run's "
        "method has no classifier of its own. Set one of them, or take eval=default."
    )


def _add_knn(plan: Plan, cfg: KnnConfig, found: Material) -> None:
    bank = found.banks[cfg.bank]
    k, note = settle_neighbours(cfg, bank.size)
    plan.notes += [note] if note else []
    name = f"knn_k{k}_T{cfg.temperature:g}{_suffix(cfg.bank)}"
    plan.work[name] = partial(run_knn, cfg, k, bank, found.test, len(found.counts))


def _add_linear(plan: Plan, cfg: LinearConfig, seeds: Sequence[int], found: Material) -> None:
    bank, num_classes = found.banks[cfg.fit_on], len(found.counts)
    settled, note = settle_shots(cfg, bank.sizes(num_classes), found.names)
    plan.notes += [note] if note else []
    for shots in settled:
        name = f"linear_{_kind(shots)}{_suffix(cfg.fit_on)}"
        plan.work[name] = partial(run_linear, cfg, shots, seeds, bank, found.test, num_classes)


def _kind(shots: float | str) -> str:
    if isinstance(shots, str):
        return shots
    return f"{shots}shot" if isinstance(shots, int) else f"{100 * shots:g}percent"


def _suffix(bank: str) -> str:
    return "_trainset" if bank == "train" else ""
