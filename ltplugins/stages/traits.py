# SPDX-License-Identifier: MIT
"""What an evaluated run is made of, as a report compares it: config, data, evaluation, progress."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ltplugins.config.identity import experiment
from ltplugins.config.literal import refuse_interpolations
from ltplugins.core.errors import UserError
from ltplugins.data.schema import LAND
from ltplugins.eval.results import Results
from ltplugins.report.rows import Trait, progress_mark
from ltplugins.runs.folder import RunFolder

# What a protocol's name says already.
_NAMED = ("shots", "fit_on", "bank", "k", "temperature", "tau")


def pair_key(results: Results) -> str:
    """What runs of two rows share that can be compared one with the other."""
    data = results.contents.pictures[:12] if results.contents else ""
    test = results.parts.get("test", "")[:12]
    return f"split {results.split.hash[:12]}, seed {results.seed}, data {data}, test {test}"


def whole_config(run: RunFolder) -> dict[str, Any]:
    """A run's config as plain values, with a block ``data``.

    Raises:
        UserError: it is damaged, or of another program, or asks for values of this machine.
    """
    config: Any = OmegaConf.to_container(run.config())
    refuse_interpolations(config, f"{run.path}/config.yaml")  # reports and entries give it away
    if not isinstance(config.get("data"), dict):
        raise UserError(
            f"{run.path}: its config is damaged, or of another program: data: expected a block of "
            f"keys, got {config.get('data')!r:.60}."
        )
    return config


def run_traits(path: Path, results: Results) -> dict[str, Trait]:
    """By key: everything in which a run may differ from another of its method.

    Args:
        path: the run's folder, or that of a checkpoint of solo-learn's.
        results: its evaluation.
    """
    run = RunFolder.evaluated(path)
    config = whole_config(run)
    traits = {key: Trait(v, _show(v)) for key, v in experiment(config).items()}
    world_size = run.facts.identity.get("world_size") if run.facts else None
    traits["processes"] = Trait(world_size, str(world_size))
    traits["host"] = Trait(results.host, str(results.host))
    return {**traits, **_data(config, results), **_evaluation(results), **_progress(results)}


def _data(config: Any, results: Results) -> dict[str, Trait]:
    """Data are compared by what they are and told by where they lie."""
    block = {**(config.get("data") or {}), **results.data}
    if block.get("dataset") in LAND:
        # Embedded and held to its hash: its images follow from its keys, and differ by the fold.
        return {}
    contents = results.contents
    source = f"{contents.source} {results.class_names}" if contents else None
    hashes = {
        "train_path": source,
        "val_path": results.parts.get("test"),
        "probe_path": results.parts.get("probe"),
    }
    return {
        f"data.{key}": Trait(value, _show(block.get(key)), value is not None, matters=True)
        for key, value in hashes.items()
        if key != "probe_path" or block.get(key) is not None
    }


def _evaluation(results: Results) -> dict[str, Trait]:
    """By protocol, since those of one file may have been asked for one after the other."""
    traits: dict[str, Trait] = {}
    for name, entry in results.protocols.items():
        found = {k: v for k, v in entry.settings.items() if k not in _NAMED}
        if entry.kind != "classifier":
            traits |= {f"eval.{name}.{k}": Trait(v, _show(v)) for k, v in found.items()}
        if entry.seeds:
            traits[f"eval.{name}.seeds"] = Trait(entry.seeds, _show(entry.seeds))
    return traits


def _progress(results: Results) -> dict[str, Trait]:
    mark = progress_mark(results.progress)
    return {"progress": Trait(mark, mark, matters=True)}


def _show(value: Any) -> str:
    return "null" if value is None else str(value)
