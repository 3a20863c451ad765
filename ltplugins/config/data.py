# SPDX-License-Identifier: MIT
"""From a run's config to its data: the one place where its mappings become the types of the data.

Legend: B batch of one rank.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.core.schema import parse
from ltplugins.data.augment.schema import AugmentationBlock, parse_augmentations
from ltplugins.data.schema import DaliConfig, DataConfig, parse_data_config
from ltplugins.data.training_set import TrainingSet


def data_config(cfg: DictConfig) -> DataConfig:
    """The ``data`` block of a run's config."""
    return parse_data_config(_plain(cfg, "data"))


def augmentation_blocks(cfg: DictConfig) -> list[AugmentationBlock]:
    """The ``augmentations`` list of a run's config."""
    return parse_augmentations(_plain(cfg, "augmentations"))


def training_set(cfg: DictConfig) -> TrainingSet:
    """What a run trains on.

    Raises:
        UserError: whatever does not fit in ``data``, ``augmentations``, ``dali`` or the batch size.
    """
    dali = parse(DaliConfig, _plain(cfg, "dali"), "dali")
    batch_size = int(cfg.optimizer.batch_size)
    return TrainingSet(data_config(cfg), augmentation_blocks(cfg), batch_size, dali=dali)


def _plain(cfg: DictConfig, key: str) -> Any:
    section = OmegaConf.select(cfg, key)
    return (
        OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else section
    )
