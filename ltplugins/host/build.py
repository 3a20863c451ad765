# SPDX-License-Identifier: MIT
"""From a resolved config to the host's method, with scaled learning rates and the right stem."""

import traceback
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ltplugins.core.errors import UserError, unknown
from ltplugins.host.facts import configured_bases, facts_of


def check_method(method: str, methods: Mapping[str, Any]) -> None:
    """Refuse a method that the host does not have.

    Args:
        method: its name.
        methods: the host's ``METHODS``.

    Raises:
        UserError: an unknown name, or one over a base that only solo-learn has.
    """
    if method in methods:
        return
    ends = [base for base in configured_bases() if f"_{method}".endswith(f"_{base}")]
    base = max(ends, key=len, default="")
    if base and base not in methods:
        raise UserError(
            f"method: {method} needs solo-learn as host, which has {base}; the host here is the "
            f"stand-in. Install solo-learn (README, 'The solo-learn way'), or take another base."
        )
    raise unknown("method", method, [m for m in methods if m not in ("base", "linear")])


def check_batches(drop_last: bool, base: str) -> None:
    """Refuse short batches for a base whose code in solo-learn asserts batches of one size.

    Raises:
        UserError: with the key and the way out.
    """
    from ltplugins.host import HOST

    if HOST.name == "solo" and not drop_last and facts_of(base).whole_batches:
        raise UserError(
            f"data.drop_last: expected true for solo-learn's {base}, which takes batches of one "
            f"size alone; got false. Set it to true."
        )


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
        model = METHODS[cfg.method](fit_to_crops(scale_learning_rates(cfg, world_size)))
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
