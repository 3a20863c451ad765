# SPDX-License-Identifier: MIT
"""A run's config as types: parsed once, handed on as it is."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

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
    SchedulerConfig,
    WandbSection,
)
from ltplugins.data.augment.schema import AugmentationBlock
from ltplugins.data.schema import DaliConfig, DataConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run's config; see ``ltplugins.config.resolve``.

    Attributes:
        method, max_epochs, name, seed, output_dir, resume_from_checkpoint, debug_augmentations,
            rank_timeout, overwrite: see ``RunKeys``.
        backbone to augmentations: the sections; those that a file does not have hold defaults.
        loggers: beside metrics.csv, names or blocks with a ``_target_``.
        callbacks: blocks with a ``_target_``.
        trainer: the other arguments of Lightning's Trainer that were given, as they were given.
        eval: the ``eval`` block as it was given, if there is one.
        blocks: those of floors above, ``eval`` and the method's options, as their types, by path;
            empty where nobody has named the types.
        remarks: sentences about what was asked for and has no effect here.
        host: the whole config as a host's classes take it and as a run folder keeps it.
    """

    method: str
    max_epochs: int
    name: str
    seed: int
    output_dir: str
    resume_from_checkpoint: str | None
    debug_augmentations: bool
    rank_timeout: int | None
    overwrite: bool

    backbone: BackboneConfig
    data: DataConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig | None
    checkpoint: CheckpointSection
    auto_resume: AutoResumeSection
    wandb: WandbSection
    knn_eval: KnnConfig
    momentum: MomentumConfig
    performance: PerformanceConfig
    dali: DaliConfig
    auto_umap: AutoUmapSection
    health: HealthSection
    augmentations: list[AugmentationBlock]

    loggers: tuple[str | Mapping[str, Any], ...]
    callbacks: tuple[Mapping[str, Any], ...]
    trainer: Mapping[str, Any]
    eval: Mapping[str, Any] | None
    blocks: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...]
    host: DictConfig

    def with_counts(self, num_samples: int, num_classes: int) -> "RunConfig":
        """The same config, which says how many images and classes there are, as hosts need it."""
        host = self.host.copy()
        host.data.update(num_samples=num_samples, num_classes=num_classes)
        data = dataclasses.replace(self.data, num_samples=num_samples, num_classes=num_classes)
        return dataclasses.replace(self, data=data, host=host)
