# SPDX-License-Identifier: MIT
"""Hydra groups: data, method, schedule, augmentations, eval; one copy of each.

``method`` also has a node for every wrapped name (``gh_colt_simclr``), which no file holds: the
registry says what it is made of. Hydra reads ``pkg://ltplugins.conf`` through this package's
resources, so they are there wherever that path is searched, and nowhere else. In Hydra's own store
they would be in every search path of the process, and a solo-learn file, in which ``method`` is a
plain key, could not be composed any more.
"""

import functools
import io
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.resources.abc import TraversableResources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ltplugins.methods.registry import compositions

_GROUP = "method"


class _Node:
    """A file that is not on the disk."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self._text = name, text

    def exists(self) -> bool:
        return True

    def is_file(self) -> bool:
        return True

    def is_dir(self) -> bool:
        return False

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return io.BytesIO(self._text.encode()) if "b" in mode else io.StringIO(self._text)

    def read_text(self, encoding: str | None = None) -> str:
        return self._text

    def read_bytes(self) -> bytes:
        return self._text.encode()


class _Folder:
    """A folder of this package, with the nodes where their group is."""

    def __init__(self, path: Path, nodes: dict[str, _Node], below: str = "") -> None:
        self._path, self._nodes, self._below = path, nodes, below
        self.name = path.name

    def exists(self) -> bool:
        return self._path.exists()

    def is_file(self) -> bool:
        return False

    def is_dir(self) -> bool:
        return self._path.is_dir()

    def iterdir(self) -> Iterator[Any]:
        yield from self._path.iterdir()
        if self._below == _GROUP:
            yield from self._nodes.values()

    def joinpath(self, *parts: Any) -> Any:
        below = "/".join(p for p in (self._below, *map(str, parts)) if p)
        group, _, file = below.partition("/")
        if group == _GROUP and file in self._nodes:
            return self._nodes[file]
        path = self._path.joinpath(*parts)
        return _Folder(path, self._nodes, below) if path.is_dir() else path

    __truediv__ = joinpath


@functools.cache
def _nodes() -> dict[str, _Node]:
    """The nodes by file name, made once: Hydra asks for the folder dozens of times a config."""
    return {
        f"{name}.yaml": _Node(
            f"{name}.yaml", f"# @package _global_\n{OmegaConf.to_yaml(OmegaConf.create(node))}"
        )
        for name, node in compositions().items()
    }


class _Resources(TraversableResources):
    def files(self) -> Any:
        return _Folder(Path(__file__).parent, _nodes())


class _Loader(SourceFileLoader):
    def get_resource_reader(self, name: str | None = None) -> Any:
        return _Resources()


def _offer_nodes(spec: ModuleSpec) -> None:
    """Let ``importlib.resources`` ask us for this package's files."""
    spec.loader = _Loader(__name__, __file__)


def _pool(dataset: str) -> str | None:
    """The OOD pool that is known to suit a set: of its size and its colours."""
    pools = {"fashion_pack": "emoji_pack", "fashion_mnist": "emoji_pack", "land_pack": "land_pool"}
    return pools.get(dataset)


OmegaConf.register_new_resolver("ltplugins.pool", _pool, replace=True)
assert __spec__ is not None
_offer_nodes(__spec__)
