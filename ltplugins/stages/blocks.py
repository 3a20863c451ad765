# SPDX-License-Identifier: MIT
"""The types of a config's blocks that floors above ``config`` own: a method's options, ``eval``.

``ltplugins.config.resolve`` takes them as an argument, so that every value of a config is checked
in one go, before a path is looked up.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from ltplugins.config.resolve import SECTIONS
from ltplugins.data.augment.schema import AugmentationBlock
from ltplugins.eval.options import EvalConfig
from ltplugins.methods.registry import option_classes, split_name

# From a method's name to the types of a config's keys by their path: {"data": DataConfig}.
Hints = Callable[[str], Mapping[str, Any]]
FREE, UNKNOWN = object(), object()


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


def is_typed(key: str, hints: Mapping[str, Any]) -> bool:
    """Whether the parser of a typed block will judge a key: not one below a block of free keys.

    Args:
        key: with dots.
        hints: types by path; a top-level key that is not among them is the parser's to judge.
    """
    path, *parts = key.split(".")
    hint = hints.get(path, UNKNOWN if hints else FREE)
    for part in parts:
        if hint in (FREE, UNKNOWN):
            break
        path = f"{path}.{part}"
        hint = hints[path] if path in hints else _inside(hint, part)
    return hint is not FREE


def _inside(hint: Any, part: str) -> Any:
    """The type of a key within a block; FREE where any goes, UNKNOWN where this one does not."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _inside(args[0], part)
    if origin in (typing.Union, types.UnionType):
        found = [one for one in (_inside(arg, part) for arg in args) if one is not UNKNOWN]
        return found[0] if found else UNKNOWN
    if origin is list:
        return args[0] if part.isdigit() else UNKNOWN
    if dataclasses.is_dataclass(hint):
        return typing.get_type_hints(hint, include_extras=True).get(part, UNKNOWN)
    return FREE if hint is Any or dict in (hint, origin) else UNKNOWN
