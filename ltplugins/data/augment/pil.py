# SPDX-License-Identifier: MIT
"""One image at a time: the ``workers`` engine's views, and the deterministic transform of tests.

Order, interpolation and operators are solo-learn 1.0.6's (``solo/data/pretrain_dataloader.py`` at
9187ee3); vertical flip, quarter turn and RandAugment, after them, are ours. Differences: the blur
draws its sigma from torch's generator, not from Python's ``random``, so that one seed covers an
image; without ``rrc`` an image that is not square is centre-cropped after the resize, where
solo-learn would give views of several shapes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from ltplugins.data.augment.randaugment import RandAugment
from ltplugins.data.augment.schema import AugmentationBlock, BlurConfig, normalisation
from ltplugins.data.augment.strength import Boost
from ltplugins.data.sources.records import DataRecord


class GaussianBlur:
    """PIL's Gaussian blur with a sigma drawn uniformly from a range, in pixels."""

    def __init__(self, sigma: Sequence[float]) -> None:
        self.low, self.high = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        sigma = self.low + (self.high - self.low) * float(torch.rand(1))
        return image.filter(ImageFilter.GaussianBlur(radius=sigma))


class View:
    """The random transform of one view: PIL image to float [3, crop_size, crop_size].

    It draws from torch's global generator only; the caller seeds it for every image.

    Args:
        block: of the YAML.
        record: statistics for the normalisation.
        boost: RandAugment follows a strength, whatever the block says of it.
    """

    def __init__(
        self, block: AugmentationBlock, record: DataRecord, boost: Boost | None = None
    ) -> None:
        self._random = transforms.Compose(_random_steps(block))
        cfg = block.randaugment if boost is None else boost.config()
        self._randaugment = RandAugment(cfg) if cfg.prob else None
        mean, std = normalisation(block, record)
        self._finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __call__(
        self, image: Image.Image, prob: float | None = None, magnitude: float | None = None
    ) -> Tensor:
        """Make the view; ``prob`` and ``magnitude`` of RandAugment are the block's if not given."""
        image = self._random(image)
        if self._randaugment is not None:
            cfg = self._randaugment.cfg
            image = self._randaugment(
                image,
                cfg.prob if prob is None else prob,
                cfg.magnitude if magnitude is None else magnitude,
            )
        return self._finish(image)


def view_transform(block: AugmentationBlock, record: DataRecord) -> View:
    """Build the random transform of one view; see :class:`View`."""
    return View(block, record)


def _random_steps(block: AugmentationBlock) -> list[Callable[..., Any]]:
    steps = _crop(block)
    jitter = block.color_jitter
    if jitter.prob:
        colour = transforms.ColorJitter(
            jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
        )
        steps.append(transforms.RandomApply([colour], p=jitter.prob))
    if block.grayscale.prob:
        steps.append(transforms.RandomGrayscale(p=block.grayscale.prob))
    steps += _filters(block)
    if block.horizontal_flip.prob:
        steps.append(transforms.RandomHorizontalFlip(p=block.horizontal_flip.prob))
    if block.vertical_flip.prob:
        steps.append(transforms.RandomVerticalFlip(p=block.vertical_flip.prob))
    if block.quarter_turn.prob:
        steps.append(transforms.RandomApply([_quarter_turn], p=block.quarter_turn.prob))
    return steps


def _quarter_turn(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.ROTATE_90)


def _crop(block: AugmentationBlock) -> list[Callable[..., Any]]:
    size, bicubic = block.crop_size, InterpolationMode.BICUBIC
    if not block.rrc.enabled:
        return [transforms.Resize(size, interpolation=bicubic), transforms.CenterCrop(size)]
    scale = (block.rrc.crop_min_scale, block.rrc.crop_max_scale)
    return [transforms.RandomResizedCrop(size, scale=scale, interpolation=bicubic)]


def _filters(block: AugmentationBlock) -> list[Callable[..., Any]]:
    blur: BlurConfig = block.gaussian_blur
    options: list[tuple[float, Callable[..., Any]]] = [
        (blur.prob, GaussianBlur(blur.sigma)),
        (block.solarization.prob, ImageOps.solarize),
        (block.equalization.prob, ImageOps.equalize),
    ]
    return [transforms.RandomApply([step], p=prob) for prob, step in options if prob]


class ViewTransform:
    """All views of one image, in the order of the blocks.

    Args:
        blocks: of the YAML.
        record: statistics for the normalisation.
        crop_only: stop after the crop and give uint8; the ``batched`` engine does the rest.
        boost: RandAugment follows the strength of the image.
    """

    def __init__(
        self,
        blocks: Sequence[AugmentationBlock],
        record: DataRecord,
        *,
        crop_only: bool = False,
        boost: Boost | None = None,
    ) -> None:
        self.boost = None if crop_only else boost
        self._steps: list[Callable[..., Tensor]] = []
        for block in blocks:
            step = (
                transforms.Compose([*_crop(block), transforms.PILToTensor()])
                if crop_only
                else View(block, record, boost)
            )
            self._steps += [step] * block.num_crops

    def __call__(self, image: np.ndarray, strength: float = 0.0) -> list[Tensor]:
        """Make the views of ``image``, uint8 [H, W, 3]: V tensors [3, crop_size, crop_size]."""
        pil = Image.fromarray(image)
        if self.boost is None:
            return [step(pil) for step in self._steps]
        magnitude = self.boost.magnitude(strength, float(torch.rand(1)))
        return [step(pil, strength, magnitude) for step in self._steps]
