# SPDX-License-Identifier: MIT
"""Training sets, loaders and their parts from what a YAML would say."""

import numpy as np
import torch
from omegaconf import OmegaConf

from ltplugins.core.schema import check, parse
from ltplugins.data.augment.batch.views import BatchedViews
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.datamodule import build_datamodule
from ltplugins.data.engines.build import build_loader
from ltplugins.data.imbalance import ImbalanceConfig, Split, hash_indices, make_split
from ltplugins.data.samplers.base import Shard
from ltplugins.data.samplers.build import build_sampler
from ltplugins.data.schema import DaliConfig, DataConfig, SamplerConfig, parse_data_config
from ltplugins.data.sources.build import build_source
from ltplugins.data.training_set import TrainingSet


def plain(section):
    return OmegaConf.to_container(section) if OmegaConf.is_config(section) else section


def data_config(section):
    return parse_data_config(plain(section))


def source_of(section, part="train"):
    return build_source(data_config(section), part)


def split_of(targets, num_classes, block):
    return make_split(targets, num_classes, parse(ImbalanceConfig, block, "data.imbalance"))


def sampler_of(block, targets, **shard):
    """The sampler of a name or a block; ``shard``: rank, world_size, seed."""
    return build_sampler(check(block, SamplerConfig, "data.sampler"), targets, Shard(**shard))


def batched_views(blocks, *args):
    return BatchedViews(parse_augmentations(blocks), *args)


def training_set(cfg):
    """The training set of a config with ``data``, ``augmentations``, ``optimizer.batch_size``."""
    blocks = parse_augmentations(plain(cfg.augmentations))
    return TrainingSet(data_config(cfg.data), blocks, cfg.optimizer.batch_size)


def data_module(cfg):
    return build_datamodule(training_set(cfg), cfg.seed)


def chosen(source, indices):
    """The images at ``indices`` as a split."""
    indices = np.asarray(indices)
    labelled = source.targets[indices][source.targets[indices] >= 0]
    counts = np.bincount(labelled, minlength=source.num_classes)
    return Split(indices, counts, hash_indices(indices), "chosen")


def loader_of(
    source,
    blocks,
    *,
    indices=None,
    sampler="shuffle",
    ood=None,
    batch_size=4,
    drop_last=True,
    device="cpu",
    rank=0,
    world=1,
    seed=0,
    **data,
):
    """The loader of one rank over images that are there; ``data``: keys of the data block."""
    sampler = check(sampler, SamplerConfig, "data.sampler")
    training = TrainingSet(
        DataConfig("custom", sampler=sampler, **{"num_workers": 0, **data}),
        parse_augmentations(blocks),
        batch_size,
        source=source,
        split=None if indices is None else chosen(source, indices),
        ood_source=ood,
        dali=DaliConfig(device="gpu" if device != "cpu" else "cpu"),
        drop_last=drop_last,
    )
    return build_loader(training, Shard(rank, world, seed), torch.device(device))
