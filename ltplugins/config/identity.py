# SPDX-License-Identifier: MIT
"""What a run's numbers depend on: its identity, its hash, and where two differ."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from ltplugins.data.sources.contents import content_hash

if TYPE_CHECKING:
    from ltplugins.config.run import RunConfig
    from ltplugins.data.training_set import TrainingSet

# What may differ between a run and its continuation without changing the numbers.
_NOT_IDENTITY = (
    "output_dir",
    "wandb",
    "resume_from_checkpoint",
    "debug_augmentations",
    "eval",
    "health",
    "rank_timeout",
    "max_time",
)

# What repetitions of one experiment may differ in.
REPETITIONS = (
    "seed",
    "data.imbalance.class_order",
    "data.imbalance.split_seed",
    "data.fold",
)
# Names and places, and what only follows from the repetition.
_PLACES = (
    "name",
    "data.train_path",
    "data.val_path",
    "data.probe_path",
    "data.root",
    "data.num_samples",
    "balance.run",
    "balance.output_dir",
    "balance.seed",
    "balance.accelerator",
    "balance.devices",
    "finetune.run",
    "finetune.output_dir",
    "finetune.seed",
    "finetune.accelerator",
    "finetune.devices",
)
_GIVEN_DATA = ("balance.data.", "finetune.data.")

_OF_CONTENTS = "contents "
_DATA_HASHES = ("data_hash", "ood_hash")
_NOT_OF_DATA = ("num_workers", "worker_timeout")
_TRAINER_NOT_IDENTITY = ("enable_progress_bar", "log_every_n_steps", "logger", "profiler")


def identity(run: "RunConfig", world_size: int) -> dict[str, Any]:
    """Everything that the run's numbers depend on, as plain nested values."""
    plain = OmegaConf.to_container(run.host, resolve=True)
    assert isinstance(plain, dict)
    return {**_kept(plain), "world_size": world_size}


def _kept(plain: Mapping[Any, Any]) -> dict[str, Any]:
    skip = {*_NOT_IDENTITY, *_TRAINER_NOT_IDENTITY, "checkpoint", "auto_resume", "auto_umap"}
    kept: dict[str, Any] = {str(k): v for k, v in plain.items() if k not in skip}
    kept["data"] = {k: v for k, v in kept["data"].items() if k not in _NOT_OF_DATA}
    for key in ("devices", "num_nodes"):  # the world size says it
        kept.pop(key, None)
    if kept["data"].get("engine") != "dali":
        kept.pop("dali", None)
    return kept


def experiment(config: Mapping[Any, Any]) -> dict[str, Any]:
    """What repetitions of one experiment share: the leaves of a run's config, by their paths.

    Left out are seeds and what they choose, names and places. Which data lie at a place is for the
    caller to compare.
    """
    leaves = flatten(_kept(config))
    skip = (*REPETITIONS, *_PLACES)
    return {k: v for k, v in leaves.items() if k not in skip and not k.startswith(_GIVEN_DATA)}


def flatten(block: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested blocks by their paths.

    >>> flatten({"data": {"dataset": "cifar10", "ood": None}, "seed": 0})
    {'data.dataset': 'cifar10', 'data.ood': None, 'seed': 0}
    """
    leaves: dict[str, Any] = {}
    for key, value in block.items():
        inner = isinstance(value, Mapping) and value
        leaves |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return leaves


def data_hashes(data: "TrainingSet") -> dict[str, str]:
    """What of a run's identity is known only once its data are read."""
    contents = content_hash(data.source, data.split.indices)
    hashes = {"split_hash": data.split.hash, "data_hash": f"{_OF_CONTENTS}{contents}"}
    if data.ood_source is not None:
        hashes["ood_hash"] = f"{_OF_CONTENTS}{content_hash(data.ood_source)}"
    return hashes


def comparable(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both identities without what cannot be compared: older runs hashed the names of files."""
    skip = [k for k in _DATA_HASHES if not str(old.get(k, "")).startswith(_OF_CONTENTS)]
    there, here = ({k: v for k, v in one.items() if k not in skip} for one in (old, new))
    return there, here


def identity_hash(value: Mapping[str, Any]) -> str:
    """Hash the identity of a run to 16 letters, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List "key: there x, here y" for every leaf in which two identities differ."""
    rows: list[str] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            rows += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            rows.append(f"{prefix}{key}: {a!r} there, {b!r} here")
    return rows
