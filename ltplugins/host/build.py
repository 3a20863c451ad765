# SPDX-License-Identifier: MIT
"""From a resolved config to the host's method, with scaled learning rates and the right stem."""

import traceback
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ltplugins.core.errors import UserError


def build_model(cfg: DictConfig, world_size: int, record_small_stem: bool) -> Any:
    """Build the host's method with scaled learning rates and the stem that the config asks for.

    Raises:
        UserError: the host refuses the config.
    """
    from ltplugins.host import METHODS
    from ltplugins.host.head import apply_head
    from ltplugins.host.patches import fit_to_crops
    from ltplugins.host.stem import apply_stem, has_stem

    try:
        scaled = scale_learning_rates(cfg, world_size)
        model = METHODS[cfg.method](fit_to_crops(scaled))
    except AssertionError as error:
        # solo-learn checks its config by bare asserts: the source line is all there is to show.
        line = traceback.extract_tb(error.__traceback__)[-1].line
        raise UserError(
            f"{cfg.method}: solo-learn refuses the config, it expects: {line}. Look at "
            f"method_kwargs, backbone and optimizer."
        ) from error
    # Of solo-learn's own methods; a wrapper and the stand-in have done it.
    apply_head(model, cfg, cfg.method)
    # solo-learn chooses the stem by the data set's name; here the switch or the record does.
    small = OmegaConf.select(cfg, "backbone.small_stem")
    if small or has_stem(model.backbone):
        apply_stem(model, record_small_stem if small is None else small)
    if not OmegaConf.select(cfg, "performance.disable_channel_last"):
        model = model.to(memory_format=torch.channels_last)
    return model


def scale_learning_rates(cfg: DictConfig, world_size: int) -> DictConfig:
    """A copy of a host's config whose learning rates are scaled by (batch x world size) / 256."""
    cfg = cfg.copy()
    scale = cfg.optimizer.batch_size * world_size / 256
    cfg.optimizer.lr = cfg.optimizer.lr * scale
    cfg.optimizer.classifier_lr = cfg.optimizer.classifier_lr * scale
    return cfg
