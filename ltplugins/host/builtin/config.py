# SPDX-License-Identifier: MIT
"""The config sections that the base classes read: solo-learn's keys, typed, with its defaults.

Unlike solo-learn's these are strict: an unknown key or a wrong type is refused with the nearest
valid name. Defaults are written back, so that the config of a run shows all it was run with.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse

T = TypeVar("T")


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


def read(cls: type[T], cfg: DictConfig, path: str) -> T:
    """Parse the section at ``path`` into ``cls`` and write it back with its defaults filled in.

    Raises:
        UserError: see ``ltplugins.core.schema.parse``.
    """
    section = OmegaConf.select(cfg, path)
    if isinstance(section, DictConfig):
        section = OmegaConf.to_container(section, resolve=True)
    if section is not None and not isinstance(section, Mapping):
        raise UserError(f"{path}: expected a block of keys, got {section!r}.")
    # An empty key ("kwargs:") is None in YAML and means the default.
    given = {key: value for key, value in (section or {}).items() if value is not None}
    parsed = parse(cls, given, path)
    OmegaConf.update(cfg, path, asdict(parsed), merge=False, force_add=True)  # type: ignore[call-overload]
    return parsed


def require_int(cfg: DictConfig, path: str, minimum: int = 0) -> int:
    """Return the whole number at ``path``.

    Raises:
        UserError: it is missing, not a whole number, or below ``minimum``.
    """
    value = OmegaConf.select(cfg, path)
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UserError(f"{path}: expected a whole number >= {minimum}, got {value!r}.")
    return value


def require_pair(cfg: DictConfig) -> None:
    """Refuse other than two large crops, for methods that compare one view with one other.

    Raises:
        UserError: ``data.num_large_crops`` is not 2.
    """
    if cfg.data.num_large_crops != 2:
        raise UserError(
            f"{cfg.method} compares exactly two large crops; data.num_large_crops is "
            f"{cfg.data.num_large_crops}. Set num_crops of the augmentation blocks to 2 in all."
        )
