# SPDX-License-Identifier: MIT
"""The run's config: solo-learn's keys plus ours, checked once, before any work.

solo-learn turns OmegaConf's struct mode off, so a typo there trains with a default. Here every
section has a dataclass of its valid keys and types; values stay in the YAML.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.config.aliases import take_aliases
from ltplugins.config.listeners import parse_callbacks, parse_loggers
from ltplugins.config.literal import refuse_interpolations
from ltplugins.config.run import RunConfig
from ltplugins.config.sections import (
    AutoResumeSection,
    AutoUmapSection,
    BackboneConfig,
    CheckpointSection,
    HealthSection,
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
from ltplugins.data.augment.schema import AugmentationBlock, parse_augmentations
from ltplugins.data.schema import DaliConfig, DataConfig, parse_data_config

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
    "health": HealthSection,
}
_REQUIRED_SECTIONS = ("backbone", "data", "optimizer")
_RUN_KEYS = tuple(field.name for field in dataclasses.fields(RunKeys))
# Sections of the floors above, whose types are handed in, and the list of augmentations.
_ELSEWHERE = ("method_kwargs", "augmentations", "eval")
# In one of solo-learn's files, of an older scheme; nothing reads them there either.
_NO_EFFECT = ("augmentations_cfg", "wandb_cfg")


# Arguments of Lightning's Trainer that the stages give it themselves, and what to set instead.
_NOT_FOR_CONFIGS = {
    "default_root_dir": "output_dir is the folder of all that a run writes",
    "limit_test_batches": "a pretraining tests nothing, ltplugins evaluate does",
    "limit_predict_batches": "a pretraining predicts nothing",
    "enable_checkpointing": "checkpoint.enabled says whether there are checkpoints",
    "use_distributed_sampler": "the samplers of data.sampler share the images out themselves",
}

Blocks = Callable[[str], Mapping[str, type]]


def resolve(cfg: DictConfig | Mapping[str, Any], blocks: Blocks | None = None) -> RunConfig:
    """Parse a composed config and fill in the defaults; the input is left as it was.

    Args:
        blocks: for a method's name, the types of the blocks that floors above this one own, by
            their path ("method_kwargs.gh", "eval"); ``None`` leaves those blocks unchecked.

    Raises:
        UserError: an unknown key (with the nearest valid one), a wrong type, a value outside its
            range, a missing key; in a plain mapping, an interpolation.
    """
    if not isinstance(cfg, DictConfig):  # of a checkpoint, or made here: nothing is left to resolve
        refuse_interpolations(cfg, "the stored config")
    given_cfg = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    container = OmegaConf.to_container(given_cfg, resolve=True)
    assert isinstance(container, dict)
    plain: dict[str, Any] = {str(k): v for k, v in container.items()}
    remarks = [
        f"{key} has no effect, in solo-learn 1.0.6 as here."
        for key in _NO_EFFECT
        if plain.pop(key, None) is not None
    ]
    take_aliases(plain)
    _check_top_level(plain)
    if isinstance(plain["optimizer"], dict):
        # solo-learn scales the first but never defaults it; 0.1 is what all its files say.
        plain["optimizer"] = {"classifier_lr": 0.1, "weight_decay": 0.0, **plain["optimizer"]}
    sections = {
        name: _parse_section(plain, name)
        for name in SECTIONS
        if name in plain or name in _REQUIRED_SECTIONS
    }
    augmentations = _parse_augmentations(plain)
    parsed = check_blocks(plain, blocks(plain["method"])) if blocks is not None else {}
    return dataclasses.replace(_typed(plain, sections, augmentations, remarks), blocks=parsed)


def _parse_section(plain: dict[str, Any], name: str) -> Any:
    """The section's type; its values in ``plain`` become typed ones."""
    given = plain.get(name) or {}
    if not isinstance(given, Mapping):
        raise UserError(f"{name}: expected a block of keys, got {given!r}.")
    parsed: Any = parse_data_config(given) if name == "data" else parse(SECTIONS[name], given, name)
    # Typed values replace the given ones; keys nobody gave stay absent where the host has its own
    # default for them.
    values = {k: v for k, v in dataclasses.asdict(parsed).items() if k in given}
    plain[name] = {**values, **_own_defaults(name, parsed, given)}
    return (
        dataclasses.replace(parsed, kwargs=plain[name]["kwargs"]) if name == "optimizer" else parsed
    )


def _typed(
    plain: dict[str, Any],
    sections: dict[str, Any],
    augmentations: list[AugmentationBlock],
    remarks: list[str],
) -> RunConfig:
    """Write the defaults into ``plain``, as hosts and folders take it, and put the types around."""
    absent = [name for name in SECTIONS if name not in sections and name != "scheduler"]
    sections = {"scheduler": None, **sections} | {name: SECTIONS[name]() for name in absent}
    checkpoint = sections["checkpoint"]
    plain.setdefault("seed", RunKeys.seed)
    plain.setdefault("method_kwargs", {})
    plain["name"] = plain.get("name") or sections["data"].name
    # Not for the folder's config.yaml: who runs that again does not mean to lose what is there.
    overwrite = plain.pop("overwrite", RunKeys.overwrite)
    plain.setdefault("checkpoint", dataclasses.asdict(checkpoint))
    plain.setdefault("auto_resume", dataclasses.asdict(sections["auto_resume"]))
    if not plain.get("output_dir"):
        plain["output_dir"] = f"{checkpoint.dir}/{plain['method']}/{plain['name']}"
    crops = _count_crops(augmentations)
    plain["data"].update(crops)
    sections["data"] = dataclasses.replace(sections["data"], **crops)
    return RunConfig(
        method=plain["method"],
        max_epochs=plain["max_epochs"],
        name=plain["name"],
        seed=plain["seed"],
        output_dir=plain["output_dir"],
        resume_from_checkpoint=plain.get("resume_from_checkpoint"),
        debug_augmentations=plain.get("debug_augmentations", RunKeys.debug_augmentations),
        rank_timeout=plain.get("rank_timeout"),
        overwrite=overwrite,
        **sections,
        augmentations=augmentations,
        loggers=parse_loggers(plain.get("logger")),
        callbacks=parse_callbacks(plain.get("callbacks")),
        trainer={k: v for k, v in plain.items() if k in trainer_keys() - {"logger", "callbacks"}},
        eval=plain.get("eval"),
        remarks=(*remarks, *_remarks(sections["auto_umap"], sections["auto_resume"])),
        host=OmegaConf.create(plain),  # not in struct mode, as solo-learn's classes expect
    )


def _remarks(umap: AutoUmapSection, resume: AutoResumeSection) -> list[str]:
    """What is solo-learn's and has no effect here, if it was asked for."""
    lines = []
    if umap.enabled:
        lines.append("auto_umap.enabled has no effect here: ltplugins report draws embeddings.")
    if resume.max_hours != AutoResumeSection.max_hours:
        lines.append(
            "auto_resume.max_hours has no effect here: a run goes on from its own last checkpoint, "
            "however old that is."
        )
    return lines


def _own_defaults(name: str, parsed: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that our own code reads and that must therefore be there."""
    if name == "optimizer":
        # Torch's SGD and timm's LARS start at momentum 0; solo-learn means 0.9 where none is said.
        momentum = {"momentum": 0.9} if parsed.name in ("sgd", "lars") else {}
        return {"kwargs": {**momentum, **parsed.kwargs}}
    if name in ("checkpoint", "auto_resume", "wandb", "momentum"):
        return dataclasses.asdict(parsed)
    if name == "data":
        keys = ("dataset", "num_workers", "engine", "on_corrupt", "format", "val_path")
        # Blocks stay as they were written: a run's identity is made of what was given.
        blocks = {k: given[k] for k in ("imbalance", "ood", "sampler") if k in given}
        if isinstance(blocks.get("ood"), Mapping):
            blocks["ood"] = {**blocks["ood"], "dataset": parsed.ood.dataset}
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
    for key, way_out in _NOT_FOR_CONFIGS.items():
        if plain.get(key) is not None:
            raise UserError(
                f"{key}: expected nothing, got {plain[key]!r}. Leave it out: {way_out}."
            )
    if plain.get("strategy") is not None and plain["strategy"] not in STRATEGIES:
        # Per-sample memories, queues and twins are read and written whole: no sharded strategy.
        raise unknown("strategy", plain["strategy"], STRATEGIES)


def _parse_augmentations(plain: dict[str, Any]) -> list[AugmentationBlock]:
    blocks = plain.get("augmentations")
    if not isinstance(blocks, list) or not blocks:
        raise UserError(
            "augmentations: expected a list of blocks (crop_size, num_crops, rrc, color_jitter, "
            f"...), got {blocks!r}. Add one of the augmentations files to the defaults list."
        )
    return parse_augmentations(blocks)


def check_blocks(plain: dict[str, Any], blocks: Mapping[str, type]) -> dict[str, Any]:
    """Parse the blocks of a plain config into their types, by path.

    The defaults of a method's options stand in its types alone; they are written into the config,
    so that a run's folder and identity hold every value that it is trained with.

    Where one block lies within another ("method_kwargs.gh" in "method_kwargs"), the outer one does
    not know its key.

    Raises:
        UserError: see ``ltplugins.core.schema.parse``.
    """
    found: dict[str, Any] = {}
    for path, cls in blocks.items():
        section: Any = plain
        for key in path.split("."):
            section = (section or {}).get(key)
        if isinstance(section, Mapping):
            inner = {p.removeprefix(f"{path}.") for p in blocks if p.startswith(f"{path}.")}
            section = {key: value for key, value in section.items() if key not in inner}
        parsed: Any = parse(cls, section, path)
        found[path] = parsed
        if path.partition(".")[0] == "method_kwargs":
            _write(plain, path, dataclasses.asdict(parsed))
    return found


def _write(plain: dict[str, Any], path: str, values: Mapping[str, Any]) -> None:
    """Set keys of the block at ``path``, which is made where it is not there."""
    block = plain
    for key in path.split("."):
        block[key] = block.get(key) or {}
        block = block[key]
    block.update(values)


def _count_crops(blocks: list[AugmentationBlock]) -> dict[str, int]:
    """solo-learn's rule: crops of the first block's size are large, the others small."""
    large = sum(b.num_crops for b in blocks if b.crop_size == blocks[0].crop_size)
    total = sum(b.num_crops for b in blocks)
    return {"num_large_crops": large, "num_small_crops": total - large}
