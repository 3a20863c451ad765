# SPDX-License-Identifier: MIT
"""RandAugment's further operators on a whole batch, each sample with its own parameters.

They follow PIL; what it decides on 256 levels (an extreme, a bit) is decided on them here too.

Legend: B batch, C channels, S side. Images are Float[B C S S] in [0, 1].
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

# PIL's SMOOTH filter: the sum of the nine pixels and four times the middle one, over 13.
_SMOOTH = 13.0


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Map affinely by the nearest pixel, black from outside the image, as PIL's ``transform``.

    Args:
        images: Float[B C S S].
        matrix: Float[B 6], a to f: the output at (x, y) reads (a x + b y + c, d x + e y + f), with
            the centres of the pixels at halves.
    """
    batch, channels, height, width = images.shape
    x = torch.arange(0.5, width, device=images.device)
    y = torch.arange(0.5, height, device=images.device)[:, None]
    a, b, c, d, e, f = matrix.view(batch, 6, 1, 1).unbind(1)
    column, row = (a * x + b * y + c).floor(), (d * x + e * y + f).floor()  # (B, S, S)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = (row * width + column).clamp_(0, height * width - 1).long()
    place = repeat(place, "b h w -> b c (h w)", c=channels)
    read = rearrange(images, "b c h w -> b c (h w)").gather(2, place)
    return read.view_as(images) * inside[:, None]


def sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """Mix with the smoothed image: factor 0 smooths, 1 changes nothing; borders stay.

    Args:
        images: Float[B C S S].
        factor: Float[B].
    """
    if min(images.shape[2:]) < 3:
        return images
    middle = images[:, :, 1:-1, 1:-1]
    smooth = (9.0 * F.avg_pool2d(images, 3, stride=1) + 4.0 * middle) / _SMOOTH
    out = images.clone()
    out[:, :, 1:-1, 1:-1] = torch.lerp(smooth, middle, factor.view(-1, 1, 1, 1)).clamp_(0.0, 1.0)
    return out


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest ``bits`` Float[B] of the 8 bits of every pixel."""
    step = torch.exp2(8.0 - bits).view(-1, 1, 1, 1)
    return (images * 255.0).round_().div_(step).floor_().mul_(step).div_(255.0)


def solarize_from(images: Tensor, level: Tensor) -> Tensor:
    """Invert what 8 bits would round to ``level`` Float[B] (0 to 255) or more; 0 inverts all."""
    cut = (level.ceil() - 0.5).view(-1, 1, 1, 1) / 255.0
    return torch.where(images < cut, images, 1.0 - images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch every channel to the whole range; one level alone stays as it is."""
    level = (images * 255.0).round_()
    low, high = level.amin((2, 3), keepdim=True), level.amax((2, 3), keepdim=True)
    span = high - low
    stretched = (level - low) / span.clamp(min=1.0)
    return torch.where(span > 0, stretched, images)


def cut_out(images: Tensor, box: Tensor, grey: float) -> Tensor:
    """Fill a box with ``grey``.

    Args:
        images: Float[B C S S].
        box: Float[B 4]: left, right, top, bottom in pixels, the ends excluded.
        grey: in [0, 1].
    """
    height, width = images.shape[2:]
    x = torch.arange(float(width), device=images.device)
    y = torch.arange(float(height), device=images.device)[:, None]
    left, right, top, bottom = box.view(-1, 4, 1, 1).unbind(1)
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)  # (B, S, S)
    return images.masked_fill(inside[:, None], grey)
