# SPDX-License-Identifier: MIT
"""The ``data`` block of a run's YAML: solo-learn 1.0.6's keys and ours, typed."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import AtLeast, Between
from ltplugins.core.schema import Section, parse
from ltplugins.data.imbalance import ImbalanceConfig

Sampler = Literal["class_aware", "id_plus_ood", "paired", "shuffle", "two_branch"]

Dataset = Literal[
    "fashion_pack",
    "fashion_mnist",
    "cifar10",
    "cifar100",
    "stl10",
    "emoji_pack",
    "imagenet",
    "imagenet100",
    "custom",
]
# Those that are read from a path.
BY_PATH: tuple[Dataset, ...] = ("imagenet", "imagenet100", "custom")
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
        dataset, format, train_path, root: as in the ``data`` block.
        fraction: share of the source to take, -1 = everything.
    """

    dataset: Dataset
    train_path: str | None = None
    format: Literal["image_folder", "file_list", "arrays"] = "image_folder"
    root: str | None = None
    fraction: Fraction = -1.0


@dataclass(frozen=True)
class DataConfig(Section):
    """Keys of the ``data`` block; the second group is ours, the first is solo-learn's.

    ``num_classes``, ``num_samples``, ``num_large_crops`` and ``num_small_crops`` are written into
    the block by the stage for the host; they are accepted here and never read. ``drop_last: false``
    trains on the last, short batch of an epoch too, as the long-tail papers' code does.
    """

    dataset: Dataset
    train_path: str | None = None
    val_path: str | None = None
    format: Literal["image_folder", "file_list", "arrays", "dali"] = "image_folder"
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
    drop_last: bool = True


def parse_data_config(section: Mapping[str, Any]) -> DataConfig:
    """Turn the ``data`` block of a config into its type, once, at the border.

    solo-learn's ``format: dali`` is an image folder that the engine ``dali`` reads, and comes back
    as these two.

    Raises:
        UserError: an unknown key, a wrong type, a value outside its range,
            ``format: dali`` with another engine.
    """
    cfg = parse(DataConfig, section, "data")
    if cfg.format != "dali":
        return cfg
    engine = section.get("engine")
    if engine not in (None, "dali"):
        raise UserError(
            f"data.format: dali asks for the engine dali, and data.engine is {engine}. "
            f"Set data.engine: dali, or data.format: image_folder."
        )
    return dataclasses.replace(cfg, format="image_folder", engine="dali")
