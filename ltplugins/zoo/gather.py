# SPDX-License-Identifier: MIT
"""From evaluated runs to the facts of an entry: what each was, and mean and spread over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.eval.results import ProtocolResult, Results, SplitName, Stat
from ltplugins.eval.scores import mean_std
from ltplugins.runs.entry import PLACES
from ltplugins.runs.facts import RunFacts
from ltplugins.zoo.facts import EntryProtocol, EntryRun

_GROUPS = ("many", "medium", "few", "group_std")


@dataclass(frozen=True)
class Evaluated:
    """A finished run with its numbers.

    Attributes:
        path: its folder.
        facts: its ``run.json``.
        config: its ``config.yaml``, as plain values.
        results: its ``results.json``.
    """

    path: Path
    facts: RunFacts
    config: Mapping[str, Any]
    results: Results

    def repetition(self) -> dict[str, Any]:
        """What may tell it from another run of its experiment: seed, class order, fold."""
        data = self.config.get("data") or {}
        imbalance = data.get("imbalance") or {}
        found = {
            "seed": self.results.seed,
            "class_order": imbalance.get("class_order"),
            "split_seed": imbalance.get("split_seed"),
            "fold": data.get("fold"),
        }
        return {key: value for key, value in found.items() if value is not None}


def gather_runs(runs: Sequence[Evaluated], shipped: Path) -> list[EntryRun]:
    """The runs as an entry tells of them.

    Raises:
        UserError: two of them are the same repetition.
    """
    varying = _varying(runs)
    found = [_run(run, varying, run.path == shipped) for run in runs]
    labels = [run.label for run in found]
    for label in labels:
        if labels.count(label) > 1:
            same = [r for r, of in zip(runs, labels, strict=True) if of == label]
            both = " and ".join(str(run.path) for run in same)
            raise UserError(
                f"{both} are the same repetition ({label}): expected runs that differ in seed, "
                f"class order, split seed or fold. Leave one of them out."
            )
    return found


def _varying(runs: Sequence[Evaluated]) -> list[str]:
    """The keys in which repetitions differ; the seed alone where there is one run."""
    known = [run.repetition() for run in runs]
    keys = dict.fromkeys(key for found in known for key in found)
    return [k for k in keys if len({str(found.get(k)) for found in known}) > 1] or ["seed"]


def _run(run: Evaluated, varying: Sequence[str], is_shipped: bool) -> EntryRun:
    facts, results, own = run.facts, run.results, run.repetition()
    return EntryRun(
        label=", ".join(f"{key.replace('_', ' ')} {own.get(key, 'none')}" for key in varying),
        is_shipped=is_shipped,
        split=SplitName(results.split.hash, results.split.description),
        epochs=results.epoch,
        hardware=hardware_of(facts.machine),
        host=facts.host,
        ltplugins=facts.ltplugins,
        torch=str(facts.packages.get("torch")),
        scores={name: _scores(entry) for name, entry in results.protocols.items()},
        hours=None if facts.seconds is None else round(facts.seconds / 3600, 3),
        commit=facts.git,
        **own,
    )


def hardware_of(machine: Mapping[str, Any]) -> str:
    """A machine in words.

    >>> hardware_of({"cpus": 2, "gpu": "NVIDIA H100"}), hardware_of({"cpus": 2})
    ('NVIDIA H100, 2 CPU cores', '2 CPU cores')
    """
    cpus = machine.get("cpus")
    words = [str(machine["gpu"])] if machine.get("gpu") else []
    return ", ".join([*words, f"{cpus} CPU cores" if cpus else "unknown CPU"])


def _scores(entry: ProtocolResult) -> dict[str, float | None]:
    found = {"overall": entry.overall.mean, "balanced": entry.balanced.mean}
    for rule, groups in entry.groups.items():
        found |= {f"{rule}.{name}": groups[name].mean for name in _GROUPS if name in groups}
    return found


def gather_protocols(runs: Sequence[Evaluated]) -> dict[str, EntryProtocol]:
    """Mean and spread of every protocol that all runs have.

    Raises:
        UserError: a run has none, a probe does not say the seeds of its draws, or the runs have no
            protocol in common.
    """
    for run in runs:
        if not run.results.protocols:
            raise UserError(
                f"{run.path}: expected a run that a protocol has measured, got results without "
                f"any. Evaluate it: ltplugins evaluate {run.path}"
            )
        for name, entry in run.results.protocols.items():
            if entry.kind == "linear" and not entry.seeds:
                raise UserError(
                    f"{run.path}: {name} does not say its seeds. Evaluate it again: ltplugins "
                    f"evaluate {run.path}"
                )
    names = [
        name
        for name in runs[0].results.protocols
        if all(name in run.results.protocols for run in runs)
    ]
    if not names:
        raise UserError(
            f"the runs have no protocol in common ({runs[0].path} has "
            f"{', '.join(runs[0].results.protocols)}). Evaluate them with the same keys."
        )
    return {name: _protocol([run.results.protocols[name] for run in runs]) for name in names}


def _protocol(entries: Sequence[ProtocolResult]) -> EntryProtocol:
    first = entries[0]
    rules = [rule for rule in first.groups if all(rule in entry.groups for entry in entries)]
    return EntryProtocol(
        kind=first.kind,
        description=first.description,
        settings=first.settings,
        seeds=first.seeds,
        overall=_over([entry.overall for entry in entries]),
        balanced=_over([entry.balanced for entry in entries]),
        groups={
            rule: {
                name: _over([entry.groups[rule][name] for entry in entries])
                for name in _GROUPS
                if name in first.groups[rule]
            }
            for rule in rules
        },
    )


def _over(stats: Sequence[Stat]) -> Stat:
    """Over runs: each counts by its mean, whatever the repetitions within it."""
    return mean_std([stat.mean for stat in stats])


def config_without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as an entry keeps it: what was trained, without the places of a machine."""
    plain: Any = OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=True)
    kept = {key: value for key, value in plain.items() if key not in PLACES}
    data = dict(kept.get("data") or {})
    for key in ("train_path", "val_path", "probe_path", "root"):
        if data.get(key) is not None:
            data[key] = Path(str(data[key])).name
    return {**kept, "data": data}
