# SPDX-License-Identifier: MIT
"""The run's config: solo-learn's keys plus ours, checked once, before any work.

solo-learn turns OmegaConf's struct mode off, so a typo there trains with a default. Here every
section has a dataclass of its valid keys and types; values stay in the YAML.
"""

import dataclasses
import hashlib
import inspect
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ltplugins.core.errors import UserError, nearest, unknown
from ltplugins.core.schema import parse
from ltplugins.data.schema import DaliConfig, DataConfig, parse_data_config
from ltplugins.host.builtin.config import (
    BackboneConfig,
    KnnConfig,
    MomentumConfig,
    OptimizerConfig,
    PerformanceConfig,
    SchedulerConfig,
)

log = logging.getLogger(__name__)


@dataclass
class CheckpointSection:
    """``checkpoint``; the last epoch is always saved."""

    enabled: bool = True
    dir: str = "runs"
    frequency: int = 1
    keep_prev: bool = False


@dataclass
class AutoResumeSection:
    """``auto_resume``; max_hours is solo-learn's and has no effect here."""

    enabled: bool = True
    max_hours: int = 36


@dataclass
class WandbSection:
    """``wandb``."""

    enabled: bool = False
    entity: str | None = None
    project: str | None = "solo-learn"
    offline: bool = False


@dataclass
class AutoUmapSection:
    """``auto_umap``: accepted so that solo-learn's files load; the report draws embeddings."""

    enabled: bool = False
    dir: str = "auto_umap"
    frequency: int = 1


_SECTIONS: dict[str, type] = {
    "backbone": BackboneConfig,
    "data": DataConfig,
    "optimizer": OptimizerConfig,
    "scheduler": SchedulerConfig,
    "checkpoint": CheckpointSection,
    "auto_resume": AutoResumeSection,
    "wandb": WandbSection,
    "knn_eval": KnnConfig,
    "momentum": MomentumConfig,
    "performance": PerformanceConfig,
    "dali": DaliConfig,
    "auto_umap": AutoUmapSection,
}
_REQUIRED_SECTIONS = ("backbone", "data", "optimizer")
_SCALARS: dict[str, Any] = {
    "name": str,
    "method": str,
    "max_epochs": int,
    "seed": int,
    "accumulate_grad_batches": int | None,
    "output_dir": str | None,
    "resume_from_checkpoint": str | None,
    "debug_augmentations": bool,
    "rank_timeout": int | None,  # seconds that a rank waits for the others; null: 30 minutes
}
# Sections with their own parsers elsewhere: by the method, the augmentations, the evaluation.
_ELSEWHERE = ("method_kwargs", "augmentations", "eval")
# Of Lightning's, those whose processes are whole copies of the method, started anew.
STRATEGIES = (
    "auto",
    "ddp",
    "ddp_find_unused_parameters_true",
    "ddp_find_unused_parameters_false",
)
# In one of solo-learn's files, of an older scheme; nothing reads them there either.
_NO_EFFECT = ("augmentations_cfg", "wandb_cfg")
# What may differ between a run and its continuation without changing the numbers.
_NOT_IDENTITY = (
    "output_dir",
    "wandb",
    "resume_from_checkpoint",
    "debug_augmentations",
    "eval",
    "rank_timeout",
)
_TRAINER_NOT_IDENTITY = ("enable_progress_bar", "log_every_n_steps", "logger", "profiler")


def trainer_keys() -> set[str]:
    """Names of the arguments of Lightning's Trainer."""
    from lightning.pytorch import Trainer

    return set(inspect.signature(Trainer.__init__).parameters) - {"self"}


def resolve(cfg: DictConfig | Mapping[str, Any]) -> DictConfig:
    """Check a composed config and fill in the defaults; the input is left as it was.

    Returns:
        A new DictConfig, not in struct mode, as solo-learn's classes expect.

    Raises:
        UserError: an unknown key (with the nearest valid one), a wrong type, a missing key.
    """
    given_cfg = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    container = OmegaConf.to_container(given_cfg, resolve=True)
    assert isinstance(container, dict)
    plain: dict[str, Any] = {str(k): v for k, v in container.items()}
    for key in _NO_EFFECT:
        if plain.pop(key, None) is not None:
            log.warning("%s has no effect, in solo-learn 1.0.6 as here.", key)
    _check_top_level(plain)
    if isinstance(plain["optimizer"], dict):
        # solo-learn scales the first but never defaults it; 0.1 is what all its files say.
        plain["optimizer"] = {"classifier_lr": 0.1, "weight_decay": 0.0, **plain["optimizer"]}
    for name, section in _SECTIONS.items():
        if name in plain or name in _REQUIRED_SECTIONS:
            parsed: Any = (
                parse_data_config(plain["data"] or {})
                if name == "data"
                else parse(section, plain.get(name), name)
            )
            given = plain.get(name) or {}
            # Typed values replace the given ones; keys nobody gave stay absent where the host
            # has its own default for them.
            values = {k: v for k, v in dataclasses.asdict(parsed).items() if k in given}
            plain[name] = {**values, **_own_defaults(name, parsed)}
    _check_augmentations(plain)
    plain.setdefault("seed", 5)
    plain.setdefault("method_kwargs", {})
    plain.setdefault("name", plain["method"])
    checkpoint = parse(CheckpointSection, plain.get("checkpoint"), "checkpoint")
    plain.setdefault("checkpoint", dataclasses.asdict(checkpoint))
    plain.setdefault("auto_resume", dataclasses.asdict(AutoResumeSection()))
    if not plain.get("output_dir"):
        plain["output_dir"] = f"{checkpoint.dir}/{plain['method']}/{plain['name']}"
    _count_crops(plain)
    return OmegaConf.create(plain)


def _own_defaults(name: str, parsed: Any) -> dict[str, Any]:
    """Keys that our own code reads and that must therefore be there."""
    if name == "optimizer":
        # Torch's SGD and timm's LARS start at momentum 0; solo-learn means 0.9 where none is said.
        momentum = {"momentum": 0.9} if parsed.name in ("sgd", "lars") else {}
        return {"kwargs": {**momentum, **parsed.kwargs}}
    if name in ("checkpoint", "auto_resume", "wandb", "momentum"):
        return dataclasses.asdict(parsed)
    if name == "data":
        keys = ("num_workers", "engine", "sampler", "on_corrupt", "format", "val_path")
        return {k: getattr(parsed, k) for k in keys}
    return {}


def _check_top_level(plain: dict[str, Any]) -> None:
    valid = {*_SECTIONS, *_SCALARS, *_ELSEWHERE, *trainer_keys()}
    for key in plain:
        if key not in valid:
            ours = sorted({*_SECTIONS, *_SCALARS, *_ELSEWHERE})
            raise UserError(
                f"unknown key '{key}'.{nearest(key, valid)} Valid: {', '.join(ours)}, and the "
                f"arguments of Lightning's Trainer."
            )
    missing = [k for k in ("method", "max_epochs", *_REQUIRED_SECTIONS) if k not in plain]
    if missing:
        raise UserError(
            f"the config has no {', '.join(missing)}. Start from one of the files under scripts/, "
            f"or from a solo-learn YAML: --config-path DIR --config-name FILE."
        )
    scalars = dataclasses.make_dataclass("Scalars", [(k, t, None) for k, t in _SCALARS.items()])
    given = {k: v for k, v in plain.items() if k in _SCALARS}
    for key, value in given.items():
        plain[key] = getattr(parse(scalars, {key: value}, "config"), key)
    if plain["max_epochs"] < 1:
        raise UserError(f"max_epochs: expected 1 or more, got {plain['max_epochs']}.")
    if (seconds := plain.get("rank_timeout")) is not None and seconds < 1:
        raise UserError(f"rank_timeout: expected seconds, 1 or more, or null; got {seconds}.")
    if plain.get("strategy") is not None and plain["strategy"] not in STRATEGIES:
        # Per-sample memories, queues and twins are read and written whole: no sharded strategy.
        raise unknown("strategy", plain["strategy"], STRATEGIES)


def _check_augmentations(plain: dict[str, Any]) -> None:
    blocks = plain.get("augmentations")
    if not isinstance(blocks, list) or not blocks:
        raise UserError(
            "augmentations: expected a list of blocks (crop_size, num_crops, rrc, color_jitter, "
            f"...), got {blocks!r}. Add one of the augmentations files to the defaults list."
        )


def _count_crops(plain: dict[str, Any]) -> None:
    """solo-learn's rule: crops of the first block's size are large, the others small."""
    blocks = plain["augmentations"]
    large = sum(b.get("num_crops", 1) for b in blocks if b["crop_size"] == blocks[0]["crop_size"])
    total = sum(b.get("num_crops", 1) for b in blocks)
    plain["data"].update(num_large_crops=large, num_small_crops=total - large)


def check_method(cfg: DictConfig, methods: Mapping[str, Any]) -> None:
    """Raise a UserError when the method's name is not in the host's ``METHODS``."""
    if cfg.method not in methods:
        raise unknown("method", cfg.method, [m for m in methods if m not in ("base", "linear")])


def scale_learning_rates(cfg: DictConfig, world_size: int) -> DictConfig:
    """Return a copy whose learning rates are scaled by (batch x world size) / 256."""
    cfg = cfg.copy()
    scale = cfg.optimizer.batch_size * world_size / 256
    cfg.optimizer.lr = cfg.optimizer.lr * scale
    cfg.optimizer.classifier_lr = cfg.optimizer.classifier_lr * scale
    return cfg


def trainer_arguments(cfg: DictConfig) -> dict[str, Any]:
    """Arguments for Lightning's Trainer, fitted to this machine; every change is logged.

    A file written for GPUs runs on a machine without one: on the CPU, in full precision.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    kwargs = {str(k): v for k, v in plain.items() if k in trainer_keys()}
    kwargs.pop("callbacks", None)
    kwargs.pop("logger", None)
    if kwargs.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        devices = kwargs.get("devices", 1)
        count = len(devices) if isinstance(devices, list) else devices
        kwargs.update(accelerator="cpu", devices=count if isinstance(count, int) else 1)
        kwargs["devices"] = max(1, kwargs["devices"])
        log.warning("accelerator=gpu was asked for and none is here: using the CPU.")
    elif isinstance(kwargs.get("devices"), list) and kwargs.get("accelerator") == "cpu":
        kwargs["devices"] = len(kwargs["devices"])
    on_cpu = kwargs.get("accelerator") == "cpu" or not torch.cuda.is_available()
    if on_cpu and str(kwargs.get("precision", "32")).startswith("16"):
        kwargs["precision"] = "32-true"
        log.warning("precision=%s needs a GPU: using 32-true.", plain.get("precision"))
    if on_cpu and kwargs.pop("sync_batchnorm", False) and kwargs.get("devices") not in (1, [0]):
        log.warning("sync_batchnorm needs a GPU: every process normalises its own batch.")
    if kwargs.get("devices") in (1, [0]) and kwargs.get("num_nodes", 1) == 1:
        kwargs["strategy"] = "auto"  # one process needs no process group
    return {k: v for k, v in kwargs.items() if v is not None}


def identity(cfg: DictConfig, world_size: int) -> dict[str, Any]:
    """Everything that the run's numbers depend on, as plain nested values."""
    plain = OmegaConf.to_container(cfg, resolve=True)
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


def identity_hash(value: Mapping[str, Any]) -> str:
    """Short hash of :func:`identity`."""
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
