# SPDX-License-Identifier: MIT
"""Random parameters of a batch of views: drawn on the CPU, one set per sample.

Drawn on the CPU whatever the training device is: the views of a seed are the same everywhere, and
which samples a step concerns is known without waiting for the device.

Legend: R rows = num_crops x B samples; row k * B + i is crop k of image i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ltplugins.data.augment.schema import AugmentationBlock, JitterConfig, RRCConfig

# torchvision's RandomResizedCrop: range of width / height, and how often it tries.
LOG_RATIO = math.log(4.0 / 3.0)
TRIES = 10

# The blur's sigma takes one of this many evenly spaced values of its range, so that the matrices
# are made once and not for every sample. Over [0.1, 2.0] the step is 0.03 pixels.
SIGMA_LEVELS = 64


class RowNumbers(Protocol):
    """Uniform random numbers of rows that each have a stream of their own."""

    def rand(self, rows: int, before: Sequence[int], after: Sequence[int]) -> Tensor:
        """Draw Float64[*before R *after] in [0, 1)."""


Randomness = torch.Generator | RowNumbers


@dataclass(frozen=True)
class CropParams:
    """Crop boxes in pixels, Float[R] each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@dataclass(frozen=True)
class JitterParams:
    """Colour jitter of R rows.

    Attributes:
        apply: Bool[R].
        rank: Float[R 4], place of brightness, contrast, saturation, hue in the order of the row.
        factor: Float[R 3], of brightness, contrast, saturation.
        hue: Float[R], shift in turns.
    """

    apply: Tensor
    rank: Tensor
    factor: Tensor
    hue: Tensor


@dataclass(frozen=True)
class ViewParams:
    """Everything random about R rows; masks are Bool[R], sigma_level Int[R]."""

    crop: CropParams | None
    flip: Tensor
    jitter: JitterParams
    grey: Tensor
    blur: Tensor
    sigma_level: Tensor
    solarize: Tensor
    equalize: Tensor


@dataclass(frozen=True)
class TurnParams:
    """How R rows are turned in the end: Bool[R] each; the quarter turn comes last."""

    vertical: Tensor
    quarter: Tensor


def draw_turns(block: AugmentationBlock, rows: int, generator: Randomness) -> TurnParams | None:
    """Draw vertical flips and quarter turns, None for a block with neither.

    They are drawn after all other parameters of all blocks, so that a block without them has the
    views that it had before there were any.
    """
    if not block.vertical_flip.prob and not block.quarter_turn.prob:
        return None
    vertical, quarter = (
        uniform(generator, rows) < step.prob for step in (block.vertical_flip, block.quarter_turn)
    )
    return TurnParams(vertical, quarter)


def draw_params(
    block: AugmentationBlock,
    rows: int,
    height: int | Tensor,
    width: int | Tensor,
    generator: Randomness,
) -> ViewParams:
    """Draw the parameters of ``rows`` views of images of height x width pixels.

    Height and width are of all images, or Float64[R]. The number of draws depends on ``rows``
    only, never on the block, so that switching one step off leaves the others' random numbers as
    they were.
    """

    def chance(prob: float) -> Tensor:
        return uniform(generator, rows) < prob

    crop = draw_crops(block.rrc, rows, height, width, generator)
    flip = chance(block.horizontal_flip.prob)
    jitter = _draw_jitter(block.color_jitter, rows, generator)
    grey = chance(block.grayscale.prob)
    blur = chance(block.gaussian_blur.prob)
    if isinstance(generator, torch.Generator):
        sigma_level = torch.randint(SIGMA_LEVELS, (rows,), generator=generator)
    else:
        sigma_level = (generator.rand(rows, (), ()) * SIGMA_LEVELS).long()
    return ViewParams(
        crop=crop if block.rrc.enabled else None,
        flip=flip,
        jitter=jitter,
        grey=grey,
        blur=blur,
        sigma_level=sigma_level,
        solarize=chance(block.solarization.prob),
        equalize=chance(block.equalization.prob),
    )


def uniform(
    generator: Randomness,
    rows: int,
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw Float[*before R *after] in [0, 1), from one stream or from one a row."""
    if isinstance(generator, torch.Generator):
        return torch.rand(*before, rows, *after, generator=generator, dtype=dtype)
    return generator.rand(rows, before, after).to(dtype)


def sigma_values(sigma: Sequence[float]) -> Tensor:
    """Give the values that sigma takes, the middles of equal parts of its range."""
    low, high = sigma
    return low + (high - low) * (torch.arange(SIGMA_LEVELS) + 0.5) / SIGMA_LEVELS


def draw_crops(
    rrc: RRCConfig,
    rows: int,
    height: int | Tensor,
    width: int | Tensor,
    generator: Randomness,
) -> CropParams:
    """Draw boxes as torchvision's RandomResizedCrop does: ten tries, else a central crop."""
    height, width = (
        torch.as_tensor(side, dtype=torch.float64).expand(rows) for side in (height, width)
    )
    u = uniform(generator, rows, before=(2, TRIES), dtype=torch.float64)
    place = uniform(generator, rows, before=(2,), dtype=torch.float64)
    low, high = rrc.crop_min_scale, rrc.crop_max_scale
    area = height * width * (low + (high - low) * u[0])
    ratio = (LOG_RATIO * (2.0 * u[1] - 1.0)).exp()
    w = (area * ratio).sqrt().round()
    h = (area / ratio).sqrt().round()
    valid = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = valid.int().argmax(0, keepdim=True)  # the first try that fits
    found = valid.any(0)
    full_h, full_w = _central_size(height, width)
    h = torch.where(found, h.gather(0, first)[0], full_h)
    w = torch.where(found, w.gather(0, first)[0], full_w)
    top = torch.where(found, (place[0] * (height - h + 1)).floor(), ((height - h) / 2).floor())
    left = torch.where(found, (place[1] * (width - w + 1)).floor(), ((width - w) / 2).floor())
    return CropParams(top.float(), left.float(), h.float(), w.float())


def _central_size(height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Find height and width of the largest central box whose ratio is in the range."""
    limit = math.exp(LOG_RATIO)
    return torch.minimum(height, (width * limit).round()), torch.minimum(
        width, (height * limit).round()
    )


def _draw_jitter(cfg: JitterConfig, rows: int, generator: Randomness) -> JitterParams:
    apply = uniform(generator, rows) < cfg.prob
    rank = uniform(generator, rows, after=(4,))
    u = uniform(generator, rows, after=(3,))
    strength = torch.tensor([cfg.brightness, cfg.contrast, cfg.saturation])
    low, high = (1.0 - strength).clamp(min=0.0), 1.0 + strength
    hue = cfg.hue * (2.0 * uniform(generator, rows) - 1.0)
    return JitterParams(apply, rank, low + (high - low) * u, hue)
