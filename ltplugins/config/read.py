# SPDX-License-Identifier: MIT
"""Sections of a host's config, read into their types and written back with their defaults.

Unlike solo-learn's these are strict: an unknown key or a wrong type is refused with the nearest
valid name. Defaults are written back, so that the config of a run shows all it was run with.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.core.schema import check, parse

T = TypeVar("T")


def read(cls: type[T], cfg: DictConfig, path: str) -> T:
    """Parse the section at ``path`` into ``cls`` and write it back with its defaults filled in.

    Raises:
        UserError: see ``ltplugins.core.schema.parse``.
    """
    section = OmegaConf.select(cfg, path)
    if isinstance(section, DictConfig):
        section = OmegaConf.to_container(section, resolve=True)
    if section is not None and not isinstance(section, Mapping):
        raise UserError(f"{path}: expected a block of keys, got {section!r}.")
    # An empty key ("kwargs:") is None in YAML and means the default.
    given = {key: value for key, value in (section or {}).items() if value is not None}
    parsed = parse(cls, given, path)
    OmegaConf.update(cfg, path, asdict(parsed), merge=False, force_add=True)  # type: ignore[call-overload]
    return parsed


def read_value(cfg: DictConfig, path: str, hint: Any) -> Any:
    """Return the value at ``path``, of the hinted type.

    Raises:
        UserError: it is missing, of another type, or outside the hint's range.
    """
    return check(OmegaConf.select(cfg, path), hint, path)


def require_pair(cfg: DictConfig) -> None:
    """Refuse other than two large crops, for methods that compare one view with one other.

    Raises:
        UserError: ``data.num_large_crops`` is not 2.
    """
    if cfg.data.num_large_crops != 2:
        raise UserError(
            f"{cfg.method} compares exactly two large crops; data.num_large_crops is "
            f"{cfg.data.num_large_crops}. Set num_crops of the augmentation blocks to 2 in all."
        )
