# SPDX-License-Identifier: MIT
"""From ``data.sampler`` to a sampler."""

import dataclasses

import numpy as np

from ltplugins.data.samplers.base import EpochSampler, Shard
from ltplugins.data.samplers.class_aware import ClassAwareSampler
from ltplugins.data.samplers.pairs import PairedSampler, TwoBranchSampler
from ltplugins.data.samplers.shuffle import IdPlusOodSampler, ShuffleSampler
from ltplugins.data.schema import SamplerConfig


def build_sampler(cfg: SamplerConfig, targets: np.ndarray, shard: Shard) -> EpochSampler:
    """Build the sampler that the ``data.sampler`` block names, for one process.

    Args:
        cfg: the ``data.sampler`` block.
        targets: Int[N] of the training images; -1 = no label.
        shard: the process, and the run's seed.

    Raises:
        UserError: labels that the sampler needs and that are not there.
    """
    own = dataclasses.asdict(shard)
    if cfg.name == "shuffle":
        return ShuffleSampler(len(targets), **own)
    if cfg.name == "paired":
        return PairedSampler(len(targets), **own)
    if cfg.name == "class_aware":
        return ClassAwareSampler(targets, cfg.gamma, **own)
    if cfg.name == "two_branch":
        return TwoBranchSampler(targets, cfg.gamma, **own)
    return IdPlusOodSampler(len(targets), **own)
