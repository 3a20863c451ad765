# SPDX-License-Identifier: MIT
"""The ``augmentations`` list of a run's YAML, typed: solo-learn 1.0.6's schema, one block a view.

A step that is left out of a block is off. Every engine honours every key; ``randaugment`` is ours.
Some of solo-learn's files also say ``enabled`` where it reads ``prob`` alone; that is accepted
where the two agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.data.sources.records import DataRecord


@dataclass(frozen=True)
class RRCConfig:
    """Random resized crop; scales are shares of the area."""

    enabled: bool = False
    crop_min_scale: float = 0.08
    crop_max_scale: float = 1.0


@dataclass(frozen=True)
class JitterConfig:
    """Colour jitter: factors from [1 - x, 1 + x], hue shift from [-hue, hue] turns."""

    prob: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    enabled: bool = True


@dataclass(frozen=True)
class ProbConfig:
    """A step without parameters but its probability."""

    prob: float = 0.0
    enabled: bool = True


@dataclass(frozen=True)
class BlurConfig:
    """Gaussian blur; sigma in pixels of the view, from this range."""

    prob: float = 0.0
    sigma: list[float] = field(default_factory=lambda: [0.1, 2.0])
    enabled: bool = True


@dataclass(frozen=True)
class RandAugmentConfig:
    """RandAugment, after all other steps; see ``randaugment.py`` for the lists and their ranges.

    Attributes:
        prob: of each of the operations.
        num_ops: operations a view draws, with replacement.
        magnitude: 0 to 30.
        ops: the list.
    """

    prob: float = 0.0
    num_ops: int = 1
    magnitude: float = 10.0
    ops: Literal["torchvision", "bcl"] = "torchvision"


@dataclass(frozen=True)
class AugmentationBlock:
    """One block: ``num_crops`` views of ``crop_size`` pixels; steps in the order they are applied.

    ``mean`` and ``std``, in [0, 1], replace those of the data set's record.
    """

    crop_size: int
    num_crops: int
    rrc: RRCConfig = field(default_factory=RRCConfig)
    color_jitter: JitterConfig = field(default_factory=JitterConfig)
    grayscale: ProbConfig = field(default_factory=ProbConfig)
    gaussian_blur: BlurConfig = field(default_factory=BlurConfig)
    solarization: ProbConfig = field(default_factory=ProbConfig)
    equalization: ProbConfig = field(default_factory=ProbConfig)
    horizontal_flip: ProbConfig = field(default_factory=ProbConfig)
    randaugment: RandAugmentConfig = field(default_factory=RandAugmentConfig)
    mean: list[float] | None = None
    std: list[float] | None = None


def parse_augmentations(blocks: Sequence[Any]) -> list[AugmentationBlock]:
    """Turn the ``augmentations`` list of a config into its types, once, at the border.

    Raises:
        UserError: an unknown key, a wrong type, or a value outside its range.
    """
    if isinstance(blocks, str) or not isinstance(blocks, Sequence) or len(blocks) == 0:
        raise UserError(f"augmentations: expected a list of at least one block, got {blocks!r}.")
    parsed = []
    for i, block in enumerate(blocks):
        path = f"augmentations[{i}]"
        parsed.append(parse(AugmentationBlock, block, path))
        _check_block(parsed[-1], path)
    return parsed


def normalisation(
    block: AugmentationBlock, record: DataRecord
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std per channel: the block's own where given, else the record's."""
    return block.mean or record.mean, block.std or record.std


def _check_block(block: AugmentationBlock, path: str) -> None:
    for name in (
        "color_jitter",
        "grayscale",
        "gaussian_blur",
        "solarization",
        "equalization",
        "horizontal_flip",
    ):
        step = getattr(block, name)
        _within(step.prob, 0, 1, f"{path}.{name}.prob")
        if step.prob > 0 and not step.enabled:
            raise UserError(
                f"{path}.{name}: enabled: false and prob: {step.prob:g} contradict each other, and "
                f"solo-learn reads prob alone. Set prob: 0 for a step that is off."
            )
    _within(block.randaugment.prob, 0, 1, f"{path}.randaugment.prob")
    _within(block.randaugment.num_ops, 1, float("inf"), f"{path}.randaugment.num_ops")
    _within(block.randaugment.magnitude, 0, 30, f"{path}.randaugment.magnitude")
    _within(block.rrc.crop_min_scale, 0, block.rrc.crop_max_scale, f"{path}.rrc.crop_min_scale")
    _within(block.rrc.crop_max_scale, 0, 1, f"{path}.rrc.crop_max_scale")
    if block.rrc.crop_max_scale == 0:
        raise UserError(f"{path}.rrc.crop_max_scale: expected a share above 0, got 0.")
    jitter = block.color_jitter
    for name in ("brightness", "contrast", "saturation"):
        _within(getattr(jitter, name), 0, float("inf"), f"{path}.color_jitter.{name}")
    _within(jitter.hue, 0, 0.5, f"{path}.color_jitter.hue")
    for name in ("crop_size", "num_crops"):
        _within(getattr(block, name), 1, float("inf"), f"{path}.{name}")
    sigma = block.gaussian_blur.sigma
    if len(sigma) != 2 or not 0 <= sigma[0] <= sigma[1]:
        raise UserError(f"{path}.gaussian_blur.sigma: expected [min, max] in pixels, got {sigma}.")
    for name in ("mean", "std"):
        values = getattr(block, name)
        if values is not None and (len(values) != 3 or min(values) < 0 or max(values) > 1):
            raise UserError(f"{path}.{name}: expected 3 numbers in [0, 1], got {values}.")
    if block.std is not None and min(block.std) == 0:
        raise UserError(f"{path}.std: expected numbers above 0, got {block.std}.")


def _within(value: float, low: float, high: float, path: str) -> None:
    if not low <= value <= high:
        raise UserError(f"{path}: expected {low:g} to {high:g}, got {value:g}.")
