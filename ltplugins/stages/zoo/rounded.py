# SPDX-License-Identifier: MIT
"""Numbers of an entry whose weights were rounded: the run's own protocols, measured again."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ltplugins.config.data import DataPaths
from ltplugins.core.errors import UserError
from ltplugins.data.schema import BY_PATH
from ltplugins.eval.results import ProtocolResult
from ltplugins.stages.command import quote
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.zoo.gather import Evaluated

_FITTING = ("grid", "val_fraction", "max_iter", "engine")


def measured(run: Evaluated, entry: Path, out: Path) -> Evaluated:
    """A run with the numbers of an entry's weights, on a CPU.

    The accuracy of a classifier of the run's own stays: an entry has none.

    Args:
        run: that the entry was made of.
        entry: its folder.
        out: a folder for the evaluation.

    Raises:
        UserError: protocols that no single evaluation has, as where one was added later.
    """
    known = run.results.protocols
    words = [f"run={quote(str(entry))}", f"out={quote(str(out))}", "device=cpu"]
    composed: Any = OmegaConf.to_container(compose_packaged("evaluate", words))
    own = {"eval": evaluation_of(known), "data": _paths(run.config)}
    found = evaluate(OmegaConf.create({**composed, **own})).protocols
    for name, of in known.items():
        if of.kind != "classifier" and (name not in found or found[name].seeds != of.seeds):
            raise UserError(
                f"{run.path}: --half measures all protocols anew by one evaluation, and {name} is "
                f"of another than the rest. Evaluate the run by one command, or leave --half out."
            )
    protocols = {name: found.get(name, of) for name, of in known.items()}
    return dataclasses.replace(run, results=dataclasses.replace(run.results, protocols=protocols))


def _paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Where a run's images lie, which an entry does not say."""
    data = config.get("data") or {}
    if data.get("dataset") not in BY_PATH:
        return {}
    keys = [field.name for field in dataclasses.fields(DataPaths)]
    return {key: data[key] for key in keys if data.get(key) is not None}


def evaluation_of(protocols: Mapping[str, ProtocolResult]) -> dict[str, Any]:
    """The block ``eval`` that asks for these protocols, as far as one block can."""
    knn = [of.settings for of in protocols.values() if of.kind == "knn"]
    probes = [of for of in protocols.values() if of.kind == "linear"]
    drawn = [of for of in probes if "shots" in of.settings]
    first = (drawn or probes)[0].settings if probes else {}
    linear = {key: first[key] for key in _FITTING if key in first}
    if drawn:
        linear |= {
            "shots": [of.settings["shots"] for of in drawn],
            "fit_on": first["fit_on"],
        }
    return {
        "knn": knn[0] if knn else None,
        "linear": linear if drawn else None,
        "linear_lt": [of.settings["tau"] for of in probes if "tau" in of.settings] or None,
        "classifier": False,
        "groups": list(dict.fromkeys(rule for of in protocols.values() for rule in of.groups)),
        "seeds": max((of.seeds for of in probes), key=len, default=[0]),
        "health": None,
    }
