# SPDX-License-Identifier: MIT
"""Image operators on a whole batch, each sample with its own parameters; pure functions.

Geometry and blur are linear maps along one axis, so they are matrices per sample and two batched
matrix products. Colours follow PIL and torchvision: the same formulas in float, without their
rounding to 8 bits between steps.

Legend: B batch, C channels, H, W height and width, S output size. Images are Float[B C H W] in
[0, 1], layout contiguous.
"""

import math

import torch
from einops import rearrange
from torch import Tensor

# ITU-R 601 luma, as PIL's conversion to "L".
LUMA = (0.299, 0.587, 0.114)


def resample_weights(
    start: Tensor, length: Tensor, flip: Tensor, in_size: int, out_size: int, taps: int
) -> tuple[Tensor, Tensor]:
    """Weigh the pixels of a bicubic, antialiased resize of [start, start + length) to ``out_size``.

    Keys' kernel with a = -0.5, widened by the scale when shrinking and cut at the crop's border:
    what PIL's ``resize`` after ``crop`` and torchvision's antialiased resize compute.

    Args:
        start: Float[B], first pixel of the crop.
        length: Float[B], pixels of the crop.
        flip: Float[B], 1 = mirror the output, 0 = not.
        in_size: pixels of the image.
        out_size: S.
        taps: weights per output pixel; at least :func:`resample_taps` of the longest crop.

    Returns:
        Int[B S taps], pixels that an output reads, and Float[B S taps], their weights: sum 1.
    """
    device = start.device
    scale = (length / out_size)[:, None]  # (B, 1)
    narrow = scale.clamp(min=1.0).reciprocal_()
    # Mirrored, output pixel o stands where S - 1 - o stood: o (1 - 2 flip) + (S - 1) flip.
    out = torch.arange(0.5, out_size, device=device)
    flip = flip[:, None]
    centre = (out * (1.0 - 2.0 * flip) + out_size * flip) * scale  # (B, S), pixels of the crop
    first = (centre - 2.0 / narrow + 0.5).floor_()
    pixel = first[..., None] + torch.arange(float(taps), device=device)  # (B, S, taps)
    x = ((pixel - (centre - 0.5)[..., None]) * narrow[..., None]).abs_()
    weight = _cubic(x)
    weight *= (pixel >= 0) & (pixel < length[:, None, None])
    weight /= weight.sum(-1, keepdim=True)
    return pixel.add_(start[:, None, None]).clamp_(0, in_size - 1).long(), weight


def dense_matrix(pixel: Tensor, weight: Tensor, in_size: int) -> Tensor:
    """Put the weights of :func:`resample_weights` in their places: Float[B S in_size]."""
    matrix = torch.zeros(*weight.shape[:2], in_size, device=weight.device)
    return matrix.scatter_add_(2, pixel, weight)


def resample_taps(longest: float, out_size: int) -> int:
    """Count the weights of an output pixel when up to ``longest`` pixels become ``out_size``."""
    return math.ceil(4.0 * max(longest / out_size, 1.0)) + 1


def _cubic(x: Tensor) -> Tensor:
    """Evaluate Keys' cubic convolution kernel, a = -0.5, at x >= 0, without branches.

    With a = max(2 - x, 0) and b = max(1 - x, 0): a^2 (a - 1) / 2 + b^2 (1 - 2 b).
    """
    outer = (2.0 - x).clamp_(min=0.0)
    inner = (1.0 - x).clamp_(min=0.0)
    inner = inner * inner * inner.mul(-2.0).add_(1.0)
    return inner.addcmul_(outer * outer, outer - 1.0, value=0.5)


def apply_separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply ``columns`` Float[B S W] along the width, then ``rows`` Float[B S' H] along the height.

    What bicubic weights push out of [0, 1] is cut after each axis, as PIL's 8 bits do.
    """
    lines = rearrange(images, "b c h w -> b (c h) w")
    across = torch.bmm(lines, columns.transpose(1, 2)).clamp_(0.0, 1.0)
    across = rearrange(across, "b (c h) s -> b c h s", c=images.shape[1])
    down = down_by_channel if images.device.type == "cpu" else down_at_once
    return down(rows, across).clamp_(0.0, 1.0)


def down_by_channel(rows: Tensor, images: Tensor) -> Tensor:
    """Apply ``rows`` Float[B S' H] along the height of Float[B C H S], copying no matrix."""
    out = images.new_empty(*images.shape[:2], rows.shape[1], images.shape[3])
    for channel in range(images.shape[1]):
        out[:, channel] = torch.bmm(rows, images[:, channel])
    return out


def down_at_once(rows: Tensor, images: Tensor) -> Tensor:
    """The same in two launches, for which the matrices are copied for every channel."""
    return torch.matmul(rows.unsqueeze(1), images)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Write PIL's Gaussian blur of an axis as a matrix: three extended box blurs, borders repeated.

    Gwosdek et al., "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering",
    SSVM 2011; PIL's ``GaussianBlur(radius=sigma)``, which solo-learn uses.

    Args:
        sigma: Float[B], pixels.
        size: pixels of the axis.

    Returns:
        Float[B size size]; rows sum to 1.
    """
    radius = _box_radius(sigma)[:, None, None]
    pad = math.ceil(float(radius.max())) + 1
    out, source = torch.arange(size), torch.arange(-pad, size + pad)
    distance = (out[:, None] - source).abs()  # (size, size + 2 pad)
    weight = (radius + 1.0 - distance).clamp_(0.0, 1.0) / (2.0 * radius + 1.0)
    # What lies beyond a border is the border's pixel.
    box = weight[:, :, pad : pad + size].clone()
    box[:, :, 0] += weight[:, :, :pad].sum(-1)
    box[:, :, -1] += weight[:, :, pad + size :].sum(-1)
    return torch.bmm(torch.bmm(box, box), box)


def _box_radius(sigma: Tensor, passes: int = 3) -> Tensor:
    """Find the radius of the extended box filter that, ``passes`` times, has this sigma."""
    variance = sigma * sigma / passes
    whole = ((12.0 * variance + 1.0).sqrt() - 1.0).div(2.0).floor()
    part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance)
    part = part / (6.0 * (variance - (whole + 1.0) ** 2))
    return whole + part


def luma(images: Tensor) -> Tensor:
    """Turn images to grey, Float[B 1 H W]; those of one channel stay as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    grey = red * LUMA[0]
    return grey.add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).unsqueeze(1)


def adjust_affine_(images: Tensor, gain: Tensor, to_grey: Tensor, to_mean: Tensor) -> Tensor:
    """Set images to clamp(gain * images + to_grey * luma + to_mean * mean(luma)), in place.

    Brightness by f is (f, 0, 0), saturation (f, 1 - f, 0), contrast (f, 0, 1 - f); (1, 0, 0)
    changes nothing. One formula for three operators, so that samples whose random order differs
    still go through together.

    Args:
        images: Float[B C H W], C = 1 or 3.
        gain: Float[B].
        to_grey: Float[B].
        to_mean: Float[B].
    """
    grey = luma(images)
    mean = grey.mean((2, 3), keepdim=True)
    offset = torch.addcmul(mean * _column(to_mean), grey, _column(to_grey))
    return torch.addcmul(offset, images, _column(gain), out=images).clamp_(0.0, 1.0)


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def shift_hue(images: Tensor, shift: Tensor, out: Tensor | None = None) -> Tensor:
    """Turn the hue by ``shift`` Float[B] (in turns) and keep saturation and value of HSV.

    With m = min, c = max - m, the hue in sixths of a turn, from -3 to 3, is
    sign(g - b) * (1 + (g + b - r - m) / c): the three cases of the usual definition in one.
    Channel n of the map back is max - c * clamp(2 - |6 (h + o_n) wrapped to [-3, 3]|, 0, 1) with
    h in turns and o = 1/2, 1/6, -1/6 for R, G, B.

    Args:
        images: Float[B 3 H W].
        shift: Float[B].
        out: where to put the result; may be ``images``.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(red, green)
    value = torch.maximum(value, blue, out=value)
    low = torch.minimum(red, green)
    low = torch.minimum(low, blue, out=low)
    chroma = value - low
    # Grey pixels have no hue; chroma 0 multiplies whatever is found for them.
    hue = (green + blue).sub_(red).sub_(low).div_(chroma.clamp(min=1e-8)).add_(1.0)
    hue = hue.copysign_(green - blue).div_(6.0).add_(shift.view(-1, 1, 1))
    # Made on the device: a list would be copied there, and the copy waits for the device.
    offset = torch.linspace(1 / 2, -1 / 6, 3, device=images.device)
    wave = hue.unsqueeze(1) + offset.view(1, 3, 1, 1)
    wave = wave.sub_(wave.round()).abs_().mul_(-6.0).add_(2.0).clamp_(0.0, 1.0)
    out = wave if out is None else out
    return torch.addcmul(value.unsqueeze(1), wave, chroma.unsqueeze(1), value=-1.0, out=out)


def solarize(images: Tensor) -> Tensor:
    """Invert what 8 bits would round to 128 or more."""
    return torch.where(images < 127.5 / 255.0, images, 1.0 - images)


def equalize(images: Tensor) -> Tensor:
    """Flatten the histogram of every channel, as PIL and torchvision do, on 256 levels."""
    _, channels, height, width = images.shape
    level = rearrange(images.mul(255.0).round_().long(), "b c h w -> (b c) (h w)")
    histogram = torch.zeros(len(level), 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, level, torch.ones_like(level))
    # PIL: step = (pixels - those of the brightest level) // 255; 0 leaves the channel alone.
    brightest = level.amax(1, keepdim=True)
    step = (height * width - histogram.gather(1, brightest)) // 255
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    flat = torch.where(step > 0, table.gather(1, level), level)
    flat = rearrange(flat, "(b c) (h w) -> b c h w", c=channels, h=height)
    return flat.float().div_(255.0)
