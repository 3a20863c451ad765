# SPDX-License-Identifier: MIT
"""The ``data`` block of a run's YAML: solo-learn 1.0.6's keys and ours, typed."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import AtLeast, Between
from ltplugins.core.schema import Section, describe, parse
from ltplugins.data.imbalance import ImbalanceConfig
from ltplugins.data.patience import SECONDS
from ltplugins.data.sources.land.options import (
    Block,
    Fold,
    Folds,
    LandConfig,
    Least,
    Purity,
    Stride,
    Tile,
    misfits,
)

Sampler = Literal["class_aware", "id_plus_ood", "paired", "shuffle", "two_branch"]

Dataset = Literal[
    "fashion_pack",
    "fashion_mnist",
    "cifar10",
    "cifar100",
    "stl10",
    "emoji_pack",
    "land_pack",
    "land_pool",
    "imagenet",
    "imagenet100",
    "custom",
]
# Those that are read from a path, and those that lie in the package and read none.
BY_PATH: tuple[Dataset, ...] = ("imagenet", "imagenet100", "custom")
LAND: tuple[Dataset, ...] = ("land_pack", "land_pool")
POOLS: tuple[Dataset, ...] = ("emoji_pack", "land_pool")  # of data.ood; nothing to evaluate on
EMBEDDED: tuple[Dataset, ...] = ("fashion_pack", "emoji_pack", *LAND)
# Folders that say which part of a set they hold, not which set.
_PARTS = ("train", "training", "images", "data")
Fraction = Annotated[float, Between(0, 1, also=-1)]  # of a source; -1: everything


@dataclass(frozen=True)
class DaliConfig(Section):
    """The ``dali`` block: solo-learn's keys.

    Attributes:
        device: where the engine ``dali`` decodes and augments.
        encode_indexes_into_labels: solo-learn's loader gives true indexes only with it; the engine
            here always does, so that it has no effect.
    """

    device: Literal["gpu", "cpu"] = "gpu"
    encode_indexes_into_labels: bool = False


@dataclass(frozen=True)
class SamplerConfig(Section):
    """The ``data.sampler`` block; a bare name, ``sampler: shuffle``, is a block of that name.

    Attributes:
        name: what draws the images; see ``samplers/``.
        gamma: of ``class_aware`` and ``two_branch``: 0 = classes alike, 1 = reversed frequency.
    """

    name: Sampler
    gamma: Annotated[float, AtLeast(0)] = 0.0

    @classmethod
    def from_scalar(cls, value: str) -> "SamplerConfig":
        """Make the block that a bare name stands for."""
        return cls(name=value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class OODConfig(Section):
    """The ``data.ood`` block: any source, named as the training source is; labels do not count.

    Attributes:
        dataset, format, train_path, root: as in the ``data`` block; a path alone is ``custom``.
        fraction: share of the source to take, -1 = everything.
    """

    dataset: Dataset = "custom"
    train_path: str | None = None
    format: Literal["image_folder", "file_list", "arrays", "hf"] = "image_folder"
    root: str | None = None
    fraction: Fraction = -1.0

    def refusals(self) -> Iterator[tuple[str, str]]:
        """A path, or a form of files, that nothing would read."""
        yield from _unread(self, ("train_path", "root"))


@dataclass(frozen=True)
class DataConfig(Section):
    """Keys of the ``data`` block; the second group is ours, the first is solo-learn's.

    ``num_classes``, ``num_samples``, ``num_large_crops`` and ``num_small_crops`` are written into
    the block by the stage for the host; they are accepted here and never read. A path without a
    ``dataset`` is ``custom``. ``drop_last: false`` trains on the last, short batch of an epoch too,
    as the long-tail papers' code does. The third group says how ``land_pack`` is cut, see
    :class:`LandConfig`; null = its default.
    """

    dataset: Dataset = "custom"
    train_path: str | None = None
    val_path: str | None = None
    format: Literal["image_folder", "file_list", "arrays", "hf", "dali"] = "image_folder"
    num_workers: Annotated[int, AtLeast(0)] = 4
    no_labels: bool = False
    fraction: Fraction = -1.0
    num_classes: Annotated[int, AtLeast(1)] | None = None
    num_large_crops: Annotated[int, AtLeast(1)] | None = None
    num_small_crops: Annotated[int, AtLeast(0)] | None = None

    num_samples: Annotated[int, AtLeast(1)] | None = None
    root: str | None = None
    probe_path: str | None = None
    imbalance: ImbalanceConfig | None = None
    engine: Literal["workers", "batched", "dali"] = "workers"
    sampler: SamplerConfig = SamplerConfig("shuffle")
    ood: OODConfig | None = None
    on_corrupt: Literal["fail", "skip"] = "fail"
    worker_timeout: Annotated[int, AtLeast(0)] = SECONDS  # a batch is waited for; 0: for ever
    drop_last: bool = True

    tile: Tile | None = None
    stride: Stride | None = None
    purity: Purity | None = None
    least: Least | None = None
    block: Block | None = None
    folds: Folds | None = None
    fold: Fold | None = None

    def refusals(self) -> Iterator[tuple[str, str]]:
        """A path, a form of files, or a way to cut the Earth, that nothing would read or fits."""
        yield from _unread(self, ("train_path", "val_path", "probe_path", "root"))
        if self.dataset in LAND or (self.ood is not None and self.ood.dataset in LAND):
            yield from misfits({**vars(LandConfig()), **self.given_of_land})
        else:
            for key in self.given_of_land:
                yield (
                    key,
                    f"null, for it is of land_pack (data=land), and dataset is {self.dataset}",
                )

    @property
    def given_of_land(self) -> dict[str, Any]:
        """The keys that say how ``land_pack`` is cut, where they are given."""
        keys = (field.name for field in dataclasses.fields(LandConfig))
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}

    @property
    def land(self) -> LandConfig:
        """How ``land_pack`` is cut."""
        return LandConfig(**self.given_of_land)

    @property
    def has_test_part(self) -> bool:
        """Whether there are test images: sets by name bring them, those by path need ``val_path``.

        >>> DataConfig("cifar10").has_test_part, DataConfig(train_path="photos").has_test_part
        (True, False)
        """
        return self.dataset not in (*BY_PATH, *POOLS) or self.val_path is not None

    @property
    def name(self) -> str:
        """What a run on these images is called where nobody gives it a name.

        >>> [DataConfig(train_path=p).name for p in ("photos/train", "/x/cells.npz", ".")]
        ['photos', 'cells', 'custom']
        >>> DataConfig("fashion_pack").name
        'fashion'
        """
        if self.dataset not in BY_PATH or self.train_path is None:
            return self.dataset.removesuffix("_pack")
        path = Path(self.train_path)
        parts = [part for part in (*path.parts[:-1], path.stem) if part != path.anchor]
        while len(parts) > 1 and parts[-1].lower() in _PARTS:
            parts.pop()
        words = re.sub(r"[^\w.-]+", "-", parts[-1]).strip("-.") if parts else ""
        return words or self.dataset


def _unread(cfg: Any, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The keys of a source that it does not read, with what is expected of each.

    Sets that are downloaded have a folder, in ``train_path``; solo-learn's files also name a
    ``val_path`` and a ``format: image_folder`` there, which say nothing.
    """
    name, is_file_set = cfg.dataset, cfg.dataset in BY_PATH
    if name in EMBEDDED:
        unread, why = paths, f"for {name} is embedded and reads no path"
    elif not is_file_set:
        unread, why = ("probe_path", "root"), f"for {name} is read from the folder train_path"
    else:
        unread = () if cfg.format == "file_list" else ("root",)
        why = f"for it is of format: file_list, and format is {cfg.format}"
    way_out = "" if is_file_set else " (images of your own: dataset: custom)"
    for key in paths:
        if key in unread and getattr(cfg, key) is not None:
            yield key, f"null, {why}{way_out}"
    if not is_file_set and cfg.format in ("file_list", "arrays", "hf"):
        yield "format", f"image_folder, for {name} has a form of its own{way_out}"


def parse_data_config(section: Mapping[str, Any]) -> DataConfig:
    """Turn the ``data`` block of a config into its type, once, at the border.

    solo-learn's ``format: dali`` is an image folder that the engine ``dali`` reads, and comes back
    as these two.

    Raises:
        UserError: an unknown key, a wrong type, a value outside its range, no source at all, a long
            tail without its form, ``format: dali`` with another engine.
    """
    if section.get("dataset") is None and section.get("train_path") is None:
        raise UserError(
            f"data.dataset is missing; it has no default: expected {describe(Dataset)}. Set it, or "
            f"data.train_path for images of your own."
        )
    given = {k: v for k, v in section.items() if k != "dataset" or v is not None}
    if isinstance(given.get("ood"), Mapping):
        given["ood"] = _pool(given["ood"])
    cfg = parse(DataConfig, given, "data")
    tail = given.get("imbalance")
    if isinstance(tail, Mapping) and tail and tail.get("kind") is None:
        raise UserError(
            f"data.imbalance.kind is missing: without it {', '.join(map(str, tail))} would have no "
            f"effect. Set it to exp, step, pareto or file."
        )
    if cfg.format != "dali":
        return cfg
    engine = section.get("engine")
    if engine not in (None, "dali"):
        raise UserError(
            f"data.format: dali asks for the engine dali, and data.engine is {engine}. "
            f"Set data.engine: dali, or data.format: image_folder."
        )
    return dataclasses.replace(cfg, format="image_folder", engine="dali")


def _pool(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block ``data.ood`` with its set.

    Raises:
        UserError: nothing says which images the pool has.
    """
    if block.get("dataset") is None and block.get("train_path") is None:
        raise UserError(
            "data.ood names no pool, and which images suit your data nobody else can say. Set "
            "data.ood.train_path (and data.ood.format) to images of other things than yours, or "
            "data.ood.dataset=emoji_pack for the embedded ones, grey and of 28 pixels."
        )
    return {k: v for k, v in block.items() if k != "dataset" or v is not None}
