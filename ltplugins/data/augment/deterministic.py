# SPDX-License-Identifier: MIT
"""The deterministic transform, from any picture to what a network takes; evaluation uses it too.

Legend: H height, W width, S pixels a side.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from ltplugins.core.errors import UserError
from ltplugins.data.sources.pictures import Damage, decode, opened, shown


def eval_resize(size: int) -> int:
    """Give the shorter side before the crop: 256/224 of it from 128 pixels on, else the crop."""
    return size if size < 128 else round(size * 256 / 224)


class EvalTransform(v2.Compose):
    """Resize, centre crop, normalise: one picture of any kind to Float[3 S S].

    An image of that size keeps its pixels where the size is below 128. A picture is a path, an
    opened PIL image, a uint8 array [H, W], [H, W, 1] or [H, W, 3], or a uint8 tensor [3, H, W],
    [1, H, W]; grey ones get three equal channels, sideways ones are turned, transparency is laid on
    white.

    Args:
        size: S.
        mean, std: per channel, in [0, 1].
        resize: the shorter side before the crop, or both; None = :func:`eval_resize`.
        interpolation: ``bilinear`` as solo-learn's evaluation (only its views are bicubic), or
            another of PIL's.

    >>> EvalTransform(28, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(np.zeros((40, 30), np.uint8)).shape
    torch.Size([3, 28, 28])
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        resize: int | tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        resize = eval_resize(size) if resize is None else resize
        super().__init__(
            [
                Picture(),
                v2.Resize(resize, interpolation=InterpolationMode(interpolation)),
                v2.CenterCrop(size),
                v2.PILToTensor(),
                UnitRange(),
                v2.Normalize(list(mean), list(std)),
            ]
        )
        self.size, self.resize, self.interpolation = size, resize, interpolation
        self.mean, self.std = tuple(mean), tuple(std)


class Picture(nn.Module):
    """The first step: any picture as PIL's RGB image, as a source of images decodes it."""

    def forward(self, picture: Any) -> Image.Image:
        """Decode one.

        Raises:
            UserError: no picture, several at once, or a file that cannot be decoded.
        """
        if isinstance(picture, str | os.PathLike):
            try:
                with opened(picture) as image:
                    return Image.fromarray(decode(image))
            except Damage as error:
                raise UserError(f"{shown(picture)} is no image ({error}).") from None
        if isinstance(picture, Image.Image):
            try:
                return Image.fromarray(decode(picture))
            except Exception as error:  # of its decoder, which begins only now: any class there is
                raise UserError(f"the picture cannot be decoded ({error!r:.200}).") from None
        pixels = picture
        if isinstance(picture, Tensor):
            pixels = picture.detach().cpu().numpy()
            pixels = np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 else pixels
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or not _is_one(pixels):
            raise UserError(
                f"expected one picture: a path, an image of PIL's, uint8 pixels (H, W[, 3]) or a "
                f"uint8 tensor (3, H, W); got {_kind(picture)}."
            )
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        return Image.fromarray(np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels)


class UnitRange(nn.Module):
    """From 0..255 to [0, 1] by a division; v2's own step multiplies, which ends in other bits."""

    def forward(self, image: Tensor) -> Tensor:
        """Scale one tensor."""
        return image.to(torch.float32).div_(255)


def _is_one(pixels: np.ndarray) -> bool:
    return pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (1, 3))


def _kind(picture: Any) -> str:
    shape = getattr(picture, "shape", None)
    kind = type(picture).__name__
    return kind if shape is None else f"{kind} of {picture.dtype}, shape {tuple(shape)}"
