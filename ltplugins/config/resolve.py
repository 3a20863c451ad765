# SPDX-License-Identifier: MIT
"""The run's config: solo-learn's keys plus ours, checked once, before any work.

solo-learn turns OmegaConf's struct mode off, so a typo there trains with a default. Here every
section has a dataclass of its valid keys and types; values stay in the YAML.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.config.sections import (
    AutoResumeSection,
    AutoUmapSection,
    BackboneConfig,
    CheckpointSection,
    KnnConfig,
    MomentumConfig,
    OptimizerConfig,
    PerformanceConfig,
    RunKeys,
    SchedulerConfig,
    TrainerKeys,
    WandbSection,
)
from ltplugins.config.trainer import STRATEGIES, trainer_keys
from ltplugins.core.errors import UserError, nearest, unknown
from ltplugins.core.schema import parse
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.schema import DaliConfig, DataConfig, parse_data_config

log = logging.getLogger(__name__)


SECTIONS: dict[str, type] = {
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
_RUN_KEYS = tuple(field.name for field in dataclasses.fields(RunKeys))
# Sections of the floors above, whose types are handed in, and the list of augmentations.
_ELSEWHERE = ("method_kwargs", "augmentations", "eval")
# In one of solo-learn's files, of an older scheme; nothing reads them there either.
_NO_EFFECT = ("augmentations_cfg", "wandb_cfg")


Blocks = Callable[[str], Mapping[str, type]]


def resolve(cfg: DictConfig | Mapping[str, Any], blocks: Blocks | None = None) -> DictConfig:
    """Check a composed config and fill in the defaults; the input is left as it was.

    Args:
        blocks: for a method's name, the types of the blocks that floors above this one own, by
            their path ("method_kwargs.gh", "eval"); ``None`` leaves those blocks unchecked.

    Returns:
        A new DictConfig, not in struct mode, as solo-learn's classes expect.

    Raises:
        UserError: an unknown key (with the nearest valid one), a wrong type, a value outside its
            range, a missing key.
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
    for name, section in SECTIONS.items():
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
            plain[name] = {**values, **_own_defaults(name, parsed, given)}
    _check_augmentations(plain)
    if blocks is not None:
        check_blocks(plain, blocks(plain["method"]))
    plain.setdefault("seed", RunKeys.seed)
    plain.setdefault("method_kwargs", {})
    plain.setdefault("name", plain["method"])
    checkpoint = parse(CheckpointSection, plain.get("checkpoint"), "checkpoint")
    plain.setdefault("checkpoint", dataclasses.asdict(checkpoint))
    plain.setdefault("auto_resume", dataclasses.asdict(AutoResumeSection()))
    if not plain.get("output_dir"):
        plain["output_dir"] = f"{checkpoint.dir}/{plain['method']}/{plain['name']}"
    _count_crops(plain)
    return OmegaConf.create(plain)


def _own_defaults(name: str, parsed: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that our own code reads and that must therefore be there."""
    if name == "optimizer":
        # Torch's SGD and timm's LARS start at momentum 0; solo-learn means 0.9 where none is said.
        momentum = {"momentum": 0.9} if parsed.name in ("sgd", "lars") else {}
        return {"kwargs": {**momentum, **parsed.kwargs}}
    if name in ("checkpoint", "auto_resume", "wandb", "momentum"):
        return dataclasses.asdict(parsed)
    if name == "data":
        keys = ("num_workers", "engine", "on_corrupt", "format", "val_path")
        # Blocks stay as they were written: a run's identity is made of what was given.
        blocks = {k: given[k] for k in ("imbalance", "ood", "sampler") if k in given}
        return {"sampler": "shuffle", **blocks, **{k: getattr(parsed, k) for k in keys}}
    return {}


def _check_top_level(plain: dict[str, Any]) -> None:
    valid = {*SECTIONS, *_RUN_KEYS, *_ELSEWHERE, *trainer_keys()}
    for key in plain:
        if key not in valid:
            ours = sorted({*SECTIONS, *_RUN_KEYS, *_ELSEWHERE})
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
    given = {key: plain[key] for key in _RUN_KEYS if key in plain}
    parsed = parse(RunKeys, given, "")
    plain.update({key: getattr(parsed, key) for key in given})
    numbers = [field.name for field in dataclasses.fields(TrainerKeys)]
    parse(TrainerKeys, {k: plain[k] for k in numbers if plain.get(k) is not None}, "")
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

    parse_augmentations(blocks)


def check_blocks(plain: dict[str, Any], blocks: Mapping[str, type]) -> None:
    """Check the blocks of a plain config against their types, by path.

    The defaults of a method's options stand in its types alone; they are written into the config,
    so that a run's folder and identity hold every value that it is trained with.

    Where one block lies within another ("method_kwargs.gh" in "method_kwargs"), the outer one does
    not know its key.

    Raises:
        UserError: see ``ltplugins.core.schema.parse``.
    """
    for path, cls in blocks.items():
        section: Any = plain
        for key in path.split("."):
            section = (section or {}).get(key)
        if isinstance(section, Mapping):
            inner = {p.removeprefix(f"{path}.") for p in blocks if p.startswith(f"{path}.")}
            section = {key: value for key, value in section.items() if key not in inner}
        parsed: Any = parse(cls, section, path)
        if path.partition(".")[0] == "method_kwargs":
            _write(plain, path, dataclasses.asdict(parsed))


def _write(plain: dict[str, Any], path: str, values: Mapping[str, Any]) -> None:
    """Set keys of the block at ``path``, which is made where it is not there."""
    block = plain
    for key in path.split("."):
        block[key] = block.get(key) or {}
        block = block[key]
    block.update(values)


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
