# SPDX-License-Identifier: MIT
"""Random parameters of a batch of views: drawn on the CPU, one set per sample.

Drawn on the CPU whatever the training device is: the views of a seed are the same everywhere, and
which samples a step concerns is known without waiting for the device.

Legend: R rows = num_crops x B samples; row k * B + i is crop k of image i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ltplugins.data.augmentations import AugmentationBlock, JitterConfig, RRCConfig

# torchvision's RandomResizedCrop: range of width / height, and how often it tries.
LOG_RATIO = math.log(4.0 / 3.0)
TRIES = 10

# The blur's sigma takes one of this many evenly spaced values of its range, so that the matrices
# are made once and not for every sample. Over [0.1, 2.0] the step is 0.03 pixels.
SIGMA_LEVELS = 64


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


def draw_params(
    block: AugmentationBlock, rows: int, height: int, width: int, generator: torch.Generator
) -> ViewParams:
    """Draw the parameters of ``rows`` views of images of height x width pixels.

    The number of draws depends on ``rows`` only, never on the block, so that switching one step
    off leaves the others' random numbers as they were.
    """

    def chance(prob: float) -> Tensor:
        return torch.rand(rows, generator=generator) < prob

    crop = draw_crops(block.rrc, rows, height, width, generator)
    flip = chance(block.horizontal_flip.prob)
    jitter = _draw_jitter(block.color_jitter, rows, generator)
    grey = chance(block.grayscale.prob)
    blur = chance(block.gaussian_blur.prob)
    sigma_level = torch.randint(SIGMA_LEVELS, (rows,), generator=generator)
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


def sigma_values(sigma: Sequence[float]) -> Tensor:
    """Float[SIGMA_LEVELS], the middles of equal parts of the range."""
    low, high = sigma
    return low + (high - low) * (torch.arange(SIGMA_LEVELS) + 0.5) / SIGMA_LEVELS


def draw_crops(
    rrc: RRCConfig, rows: int, height: int, width: int, generator: torch.Generator
) -> CropParams:
    """Boxes as torchvision's RandomResizedCrop draws them: ten tries, else a central crop."""
    u = torch.rand(2, TRIES, rows, generator=generator, dtype=torch.float64)
    place = torch.rand(2, rows, generator=generator, dtype=torch.float64)
    low, high = rrc.crop_min_scale, rrc.crop_max_scale
    area = height * width * (low + (high - low) * u[0])
    ratio = (LOG_RATIO * (2.0 * u[1] - 1.0)).exp()
    w = (area * ratio).sqrt().round()
    h = (area / ratio).sqrt().round()
    valid = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = valid.int().argmax(0, keepdim=True)  # the first try that fits
    found = valid.any(0)
    full_h, full_w = _central_size(height, width)
    h = torch.where(found, h.gather(0, first)[0], float(full_h))
    w = torch.where(found, w.gather(0, first)[0], float(full_w))
    top = torch.where(found, (place[0] * (height - h + 1)).floor(), float((height - full_h) // 2))
    left = torch.where(found, (place[1] * (width - w + 1)).floor(), float((width - full_w) // 2))
    return CropParams(top.float(), left.float(), h.float(), w.float())


def _central_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the largest central box whose ratio is in the range."""
    ratio, limit = width / height, math.exp(LOG_RATIO)
    if ratio < 1.0 / limit:
        return round(width * limit), width
    if ratio > limit:
        return height, round(height * limit)
    return height, width


def _draw_jitter(cfg: JitterConfig, rows: int, generator: torch.Generator) -> JitterParams:
    apply = torch.rand(rows, generator=generator) < cfg.prob
    rank = torch.rand(rows, 4, generator=generator)
    u = torch.rand(rows, 3, generator=generator)
    strength = torch.tensor([cfg.brightness, cfg.contrast, cfg.saturation])
    low, high = (1.0 - strength).clamp(min=0.0), 1.0 + strength
    hue = cfg.hue * (2.0 * torch.rand(rows, generator=generator) - 1.0)
    return JitterParams(apply, rank, low + (high - low) * u, hue)
