# SPDX-License-Identifier: MIT
"""Which keys the config of a stage may hold, by their path, and of which types they are."""

import typing
from collections.abc import Mapping
from typing import Any


def typed_keys(cls: type) -> Mapping[str, Any]:
    """The keys of a config that is one dataclass."""
    return typing.get_type_hints(cls, include_extras=True)


def run_keys(method: str) -> Mapping[str, Any]:
    """The typed blocks of a pretraining's config, and those of its method where one is named."""
    from ltplugins.config.resolve import SECTIONS
    from ltplugins.data.augment.schema import AugmentationBlock
    from ltplugins.data.imbalance import ImbalanceConfig
    from ltplugins.data.samplers import SamplerConfig
    from ltplugins.data.sources.joined import OODConfig
    from ltplugins.eval.protocol import EvalConfig

    keys: dict[str, Any] = {
        **SECTIONS,
        "data.imbalance": ImbalanceConfig,
        "data.ood": OODConfig,
        "data.sampler": SamplerConfig,
        "augmentations": list[AugmentationBlock],
        "eval": EvalConfig,
        "method_kwargs": dict,
    }
    if method:
        from ltplugins.methods.registry import option_classes

        keys.update(option_classes(method))
    return keys
