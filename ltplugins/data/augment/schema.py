# SPDX-License-Identifier: MIT
"""The ``augmentations`` list of a run's YAML, typed: solo-learn 1.0.6's schema, one block a view.

A step that is left out of a block is off. Every engine honours every key; ``vertical_flip``,
``quarter_turn`` and ``randaugment`` are ours.
Some of solo-learn's files also say ``enabled`` where it reads ``prob`` alone; that is accepted
where the two agree.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import AtLeast, Length, UpTo, Within
from ltplugins.core.schema import Section, parse
from ltplugins.data.sources.records import DataRecord

Share = Annotated[float, Within(0, 1)]
Change = Annotated[float, AtLeast(0)]
Pixels = Annotated[float, AtLeast(0)]


@dataclass(frozen=True)
class RRCConfig(Section):
    """Random resized crop; scales are shares of the area."""

    enabled: bool = False
    crop_min_scale: Share = 0.08
    crop_max_scale: Annotated[float, UpTo(0, 1)] = 1.0

    def refusals(self) -> Iterator[tuple[str, str]]:
        """The smaller scale comes first."""
        if not self.crop_min_scale <= self.crop_max_scale:
            yield "crop_min_scale", f"a number of at most crop_max_scale ({self.crop_max_scale:g})"


class _Step(Section):
    """A step with a probability, and a switch that must agree with it."""

    prob: float
    enabled: bool

    def refusals(self) -> Iterator[tuple[str, str]]:
        """solo-learn reads prob alone."""
        if self.prob > 0 and not self.enabled:
            yield "prob", "0 for a step that is off (enabled: false; solo-learn reads prob alone)"


@dataclass(frozen=True)
class JitterConfig(_Step):
    """Colour jitter: factors from [1 - x, 1 + x], hue shift from [-hue, hue] turns."""

    prob: Share = 0.0
    brightness: Change = 0.0
    contrast: Change = 0.0
    saturation: Change = 0.0
    hue: Annotated[float, Within(0, 0.5)] = 0.0
    enabled: bool = True


@dataclass(frozen=True)
class ProbConfig(_Step):
    """A step without parameters but its probability."""

    prob: Share = 0.0
    enabled: bool = True


@dataclass(frozen=True)
class BlurConfig(_Step):
    """Gaussian blur; sigma in pixels of the view, from this range."""

    prob: Share = 0.0
    sigma: Annotated[list[Pixels], Length(2)] = field(default_factory=lambda: [0.1, 2.0])
    enabled: bool = True

    def refusals(self) -> Iterator[tuple[str, str]]:
        """The smaller sigma comes first."""
        yield from super().refusals()
        if not self.sigma[0] <= self.sigma[1]:
            yield "sigma", "[min, max] in pixels"


@dataclass(frozen=True)
class RandAugmentConfig(Section):
    """RandAugment, after all other steps; see ``randaugment.py`` for the lists and their ranges.

    Attributes:
        prob: of each of the operations.
        num_ops: operations a view draws, with replacement.
        magnitude: 0 to 30.
        ops: the list.
    """

    prob: Share = 0.0
    num_ops: Annotated[int, AtLeast(1)] = 1
    magnitude: Annotated[float, Within(0, 30)] = 10.0
    ops: Literal["torchvision", "bcl"] = "torchvision"


@dataclass(frozen=True)
class AugmentationBlock(Section):
    """One block: ``num_crops`` views of ``crop_size`` pixels; steps in the order they are applied.

    ``quarter_turn`` turns by 90 degrees anticlockwise; with both flips, all at 0.5, each of the
    eight ways in which a square can lie is as likely.
    ``mean`` and ``std``, in [0, 1], replace those of the data set's record. ``grey`` says that the
    block leaves colours alone because there are none, and is refused for images that have them.
    """

    crop_size: Annotated[int, AtLeast(1)]
    num_crops: Annotated[int, AtLeast(1)]
    rrc: RRCConfig = field(default_factory=RRCConfig)
    color_jitter: JitterConfig = field(default_factory=JitterConfig)
    grayscale: ProbConfig = field(default_factory=ProbConfig)
    gaussian_blur: BlurConfig = field(default_factory=BlurConfig)
    solarization: ProbConfig = field(default_factory=ProbConfig)
    equalization: ProbConfig = field(default_factory=ProbConfig)
    horizontal_flip: ProbConfig = field(default_factory=ProbConfig)
    vertical_flip: ProbConfig = field(default_factory=ProbConfig)
    quarter_turn: ProbConfig = field(default_factory=ProbConfig)
    randaugment: RandAugmentConfig = field(default_factory=RandAugmentConfig)
    mean: Annotated[list[Share], Length(3)] | None = None
    std: Annotated[list[Annotated[float, UpTo(0, 1)]], Length(3)] | None = None
    grey: bool = False


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
    return parsed


def refuse_grey_blocks(blocks: Sequence[AugmentationBlock]) -> None:
    """Refuse blocks of grey images, for images in colour.

    Without changes of colour two views of an image are told by their histograms alone, and nothing
    else is learnt.

    Raises:
        UserError: a block says ``grey: true``.
    """
    for i, block in enumerate(blocks):
        if block.grey:
            raise UserError(
                f"augmentations[{i}].grey: expected false, for the images are in colour, got true "
                f"(a crop of {block.crop_size} pixels that leaves colours alone). Set "
                f"augmentations=small (32 pixels) or augmentations=imagenet (224), or "
                f"augmentations.{i}.grey=false if it is meant."
            )


def normalisation(
    block: AugmentationBlock, record: DataRecord
) -> tuple[Sequence[float], Sequence[float]]:
    """Choose mean and std per channel: the block's own where given, else the record's."""
    return block.mean or record.mean, block.std or record.std
