# SPDX-License-Identifier: MIT
"""From ``data.sampler`` to a sampler."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltplugins.core.errors import unknown
from ltplugins.core.schema import parse
from ltplugins.data.samplers.base import EpochSampler
from ltplugins.data.samplers.class_aware import ClassAwareSampler
from ltplugins.data.samplers.pairs import PairedSampler, TwoBranchSampler
from ltplugins.data.samplers.shuffle import IdPlusOodSampler, ShuffleSampler


@dataclass(frozen=True)
class SamplerConfig:
    """``data.sampler`` written as a block: a name and what it takes."""

    name: str
    gamma: float = 0.0


SAMPLERS = ("class_aware", "id_plus_ood", "paired", "shuffle", "two_branch")


def build_sampler(
    name: str | Mapping[str, Any],
    targets: np.ndarray,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> EpochSampler:
    """Build a sampler by name (``shuffle``) or block (``{name: class_aware, gamma: 0.5}``).

    Raises:
        UserError: an unknown name or key.
    """
    cfg = (
        SamplerConfig(name) if isinstance(name, str) else parse(SamplerConfig, name, "data.sampler")
    )
    if cfg.name == "shuffle":
        return ShuffleSampler(len(targets), seed=seed, rank=rank, world_size=world_size)
    if cfg.name == "paired":
        return PairedSampler(len(targets), seed=seed, rank=rank, world_size=world_size)
    if cfg.name == "class_aware":
        return ClassAwareSampler(targets, cfg.gamma, seed=seed, rank=rank, world_size=world_size)
    if cfg.name == "two_branch":
        return TwoBranchSampler(targets, cfg.gamma, seed=seed, rank=rank, world_size=world_size)
    if cfg.name == "id_plus_ood":
        return IdPlusOodSampler(len(targets), seed=seed, rank=rank, world_size=world_size)
    raise unknown("sampler", cfg.name, SAMPLERS)
