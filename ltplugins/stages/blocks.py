# SPDX-License-Identifier: MIT
"""The types of a config's blocks that floors above ``config`` own: a method's options, ``eval``.

``ltplugins.config.resolve`` takes them as an argument, so that every value of a config is checked
in one go, before a path is looked up.
"""

import typing
from collections.abc import Mapping
from typing import Any

from ltplugins.config.resolve import SECTIONS
from ltplugins.data.augment.schema import AugmentationBlock
from ltplugins.eval.protocol import EvalConfig
from ltplugins.methods.registry import option_classes, split_name


def config_blocks(method: str) -> dict[str, type]:
    """The typed blocks of a method's config, by their path in the YAML.

    Under solo-learn a base's own ``method_kwargs`` are that host's business and not among them. A
    name that no host has gets the blocks of its wrappers; the registry refuses it.
    """
    from ltplugins.host import HOST

    blocks = {"eval": EvalConfig, **option_classes(method)}
    if HOST.name == "builtin":
        from ltplugins.host.builtin import METHOD_KWARGS

        _, base = split_name(method)
        if base in METHOD_KWARGS:
            blocks["method_kwargs"] = METHOD_KWARGS[base]
    return blocks


def run_keys(method: str) -> Mapping[str, Any]:
    """The types of all blocks of a run's config, for the composer; without a method, most."""
    keys: dict[str, Any] = {**SECTIONS, "augmentations": list[AugmentationBlock]}
    keys |= {"eval": EvalConfig, "method_kwargs": dict}
    return {**keys, **config_blocks(method)} if method else keys


def typed_keys(cls: type) -> Mapping[str, Any]:
    """The types of a config that is one dataclass, for the composer."""
    return typing.get_type_hints(cls, include_extras=True)
