# SPDX-License-Identifier: MIT
"""What a run's numbers depend on: its identity, its hash, and where two differ."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from ltplugins.config.run import RunConfig
from ltplugins.data.sources.base import content_hash
from ltplugins.data.training_set import TrainingSet

# What may differ between a run and its continuation without changing the numbers.
_NOT_IDENTITY = (
    "output_dir",
    "wandb",
    "resume_from_checkpoint",
    "debug_augmentations",
    "eval",
    "rank_timeout",
    "max_time",
)


_TRAINER_NOT_IDENTITY = ("enable_progress_bar", "log_every_n_steps", "logger", "profiler")


def identity(run: RunConfig, world_size: int) -> dict[str, Any]:
    """Everything that the run's numbers depend on, as plain nested values."""
    plain = OmegaConf.to_container(run.host, resolve=True)
    assert isinstance(plain, dict)
    skip = {*_NOT_IDENTITY, *_TRAINER_NOT_IDENTITY, "checkpoint", "auto_resume", "auto_umap"}
    kept: dict[str, Any] = {str(k): v for k, v in plain.items() if k not in skip}
    kept["data"] = {k: v for k, v in kept["data"].items() if k != "num_workers"}
    for key in ("devices", "num_nodes"):  # the world size says it
        kept.pop(key, None)
    if kept["data"].get("engine") != "dali":
        kept.pop("dali", None)
    kept["world_size"] = world_size
    return kept


def data_hashes(data: TrainingSet) -> dict[str, str]:
    """What of a run's identity is known only once its data are read."""
    hashes = {"split_hash": data.split.hash, "data_hash": content_hash(data.source)}
    if data.ood_source is not None:
        hashes["ood_hash"] = content_hash(data.ood_source)
    return hashes


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
