# SPDX-License-Identifier: MIT
"""The sections of a run's YAML that every method shares: solo-learn's keys and defaults."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class BackboneConfig:
    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    small_stem: bool | None = None


@dataclass
class OptimizerConfig:
    name: str
    batch_size: int
    lr: float
    classifier_lr: float
    weight_decay: float
    exclude_bias_n_norm_wd: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class SchedulerConfig:
    """``lr_decay_steps`` are epochs; ``warmup_epochs`` may be a fraction of one."""

    name: str
    lr_decay_steps: list[int] | None = None
    min_lr: float = 0.0
    warmup_start_lr: float = 3e-5
    warmup_epochs: float = 10
    interval: Literal["step", "epoch"] = "step"


@dataclass
class KnnConfig:
    enabled: bool = False
    k: int = 20
    distance_func: Literal["cosine", "euclidean"] = "euclidean"


@dataclass
class PerformanceConfig:
    disable_channel_last: bool = False


@dataclass
class MomentumConfig:
    """EMA factor: from ``base_tau`` to ``final_tau`` along a cosine over the whole run."""

    base_tau: float = 0.99
    final_tau: float = 1.0
    classifier: bool = False


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
