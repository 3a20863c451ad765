# SPDX-License-Identifier: MIT
"""What the words of a command line imply beside what they say, as further words."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ltplugins.data.schema import EMBEDDED

log = logging.getLogger(__name__)

# The group's file of each set that has one.
FILES = {
    "fashion_pack": "fashion_pack",
    "fashion_mnist": "fashion_mnist",
    "land_pack": "land",
    "cifar10": "cifar10_lt",
    "cifar100": "cifar100_lt",
}
Base = Callable[[], DictConfig]  # the file's config without any word, with Hydra's block


def given_by(overrides: Sequence[Override]) -> dict[str, Any]:
    """The words' values by key; without those that delete."""
    return {o.key_or_group: o.value() for o in overrides if not o.is_delete()}


def implied_data(
    given: Mapping[str, Any], choices: Callable[[str], list[str]], base: Base
) -> list[str]:
    """The file of the set that the words name or imply, where they choose none themselves.

    ``data.dataset=cifar10`` alone takes CIFAR-10's file: a tail, a class order and an engine that
    were chosen for the file's own set are no other set's. A path or a form without a set means
    images of one's own, where the file's set reads no path. Both of one's own and of a set without
    a file all images are taken, with the tail that they have.

    Args:
        given: the words' values by key.
        choices: what a group has to choose from.
        base: the file's config.
    """
    name = given.get("data.dataset")
    has_path = given.get("data.train_path") is not None or given.get("data.format") is not None
    if "data" in given or (name is None and not has_path):
        return []
    chosen = base().hydra.runtime.choices.get("data")
    current = OmegaConf.select(base(), "data.dataset")
    if chosen is None or name == current or (name is None and current not in EMBEDDED):
        return []
    file = FILES.get(str(name), "custom")
    return [f"data={file}"] if file in choices("data") else []


def implied_views(
    given: Mapping[str, Any], choices: Callable[[str], list[str]], base: Base
) -> list[str]:
    """A set's own views and schedule, where the words choose the set and neither of them.

    Args:
        given: the words' values by key.
        choices: what a group has to choose from.
        base: the file's config.
    """
    name = given.get("data")
    return [
        f"{group}={name}"
        for group in ("augmentations", "schedule")
        if isinstance(name, str)
        and group not in given
        and name in choices(group)
        and group in base().hydra.runtime.choices
    ]


def left_out_kwargs(overrides: Sequence[Override], base: Base) -> list[str]:
    """The file's arguments of its optimizer, where the words name another: they are not its.

    Args:
        overrides: the words.
        base: the file's config with the groups that the words choose.
    """
    given = given_by(overrides)
    if "optimizer.name" not in given:
        return []
    kwargs = OmegaConf.select(base(), "optimizer.kwargs")
    name = OmegaConf.select(base(), "optimizer.name")
    if not kwargs or given["optimizer.name"] == name:
        return []
    named = {o.key_or_group for o in overrides}
    keys = [k for k in map(str, kwargs) if f"optimizer.kwargs.{k}" not in named]
    if keys and "optimizer.kwargs" not in named:
        log.info("optimizer.kwargs of %s left out: %s", name, ", ".join(keys))
        return [f"~optimizer.kwargs.{key}" for key in keys]
    return []
