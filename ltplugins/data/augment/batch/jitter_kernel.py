# SPDX-License-Identifier: MIT
"""Colour jitter of a batch on a GPU in one launch, each image its operators in its own order.

The formulas are those of ``ops.adjust_affine_`` and ``ops.shift_hue``; step by step they are some
two hundred launches, which take longer than the work. Needs Triton.

Legend: R rows, C channels, S crop size, P = S x S pixels.
"""

# mypy: disable-error-code="no-untyped-def"
import torch
import triton
import triton.language as tl
from torch import Tensor

from ltplugins.data.augment.batch.ops import LUMA

_RED, _GREEN, _BLUE = (tl.constexpr(weight) for weight in LUMA)
_TILE = 2048  # pixels that a program holds at a time


def jitter_(
    images: Tensor, coefficients: Tensor, hue: Tensor, group: Tensor, *, hue_active: bool
) -> None:
    """Jitter in place.

    Args:
        images: Float[R C S S], contiguous; C = 1 or 3.
        coefficients: Float[3 steps R]: gain, to_grey, to_mean of each row's operators in order.
        hue: Float[R], turns by which the hue is shifted.
        group: Int32[R], how many operators come before the hue; above ``steps`` a row stays.
        hue_active: whether the hue is shifted at all.
    """
    rows, channels, height, width = images.shape
    pixels = height * width
    with torch.cuda.device_of(images):
        _jitter[(rows,)](
            *(images, coefficients, hue, group),
            *(rows, pixels),
            STEPS=coefficients.shape[1],
            CHANNELS=channels,
            HUE=hue_active,
            TILE=min(_TILE, triton.next_power_of_2(pixels)),
            num_warps=8,
        )


@triton.jit
def _jitter(
    images,
    coefficients,
    hue,
    group,
    rows,
    pixels,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    HUE: tl.constexpr,
    TILE: tl.constexpr,
):
    row = tl.program_id(0)
    own = images + row.to(tl.int64) * CHANNELS * pixels
    place = tl.load(group + row)
    for step in tl.static_range(STEPS + 1):
        if HUE:
            if place == step:
                _shift_hue(own, tl.load(hue + row), pixels, TILE)
        if step < STEPS:
            if place <= STEPS:
                gain = tl.load(coefficients + step * rows + row)
                to_grey = tl.load(coefficients + (STEPS + step) * rows + row)
                to_mean = tl.load(coefficients + (2 * STEPS + step) * rows + row)
                _adjust(own, gain, to_grey, to_mean, pixels, CHANNELS, TILE)


@triton.jit
def _adjust(own, gain, to_grey, to_mean, pixels, CHANNELS: tl.constexpr, TILE: tl.constexpr):
    """clamp(gain * image + to_grey * luma + to_mean * mean(luma))."""
    total = 0.0
    if to_mean != 0.0:
        for start in range(0, pixels, TILE):
            place = start + tl.arange(0, TILE)
            inside = place < pixels
            total += tl.sum(_luma(own, place, inside, pixels, CHANNELS), axis=0)
    offset = total / pixels * to_mean
    for start in range(0, pixels, TILE):
        place = start + tl.arange(0, TILE)
        inside = place < pixels
        grey = _luma(own, place, inside, pixels, CHANNELS) * to_grey + offset
        tl.debug_barrier()  # all have read before one writes
        for channel in tl.static_range(CHANNELS):
            at = own + channel * pixels + place
            value = tl.load(at, mask=inside, other=0.0) * gain + grey
            tl.store(at, tl.minimum(tl.maximum(value, 0.0), 1.0), mask=inside)
    tl.debug_barrier()


@triton.jit
def _luma(own, place, inside, pixels, CHANNELS: tl.constexpr):
    red = tl.load(own + place, mask=inside, other=0.0)
    if CHANNELS == 1:
        return red
    green = tl.load(own + pixels + place, mask=inside, other=0.0)
    blue = tl.load(own + 2 * pixels + place, mask=inside, other=0.0)
    return red * _RED + green * _GREEN + blue * _BLUE


@triton.jit
def _shift_hue(own, shift, pixels, TILE: tl.constexpr):
    """Turn the hue; the offsets 1/2, 1/6 and -1/6 lead back to red, green and blue."""
    for start in range(0, pixels, TILE):
        place = start + tl.arange(0, TILE)
        inside = place < pixels
        red = tl.load(own + place, mask=inside, other=0.0)
        green = tl.load(own + pixels + place, mask=inside, other=0.0)
        blue = tl.load(own + 2 * pixels + place, mask=inside, other=0.0)
        value = tl.maximum(tl.maximum(red, green), blue)
        low = tl.minimum(tl.minimum(red, green), blue)
        chroma = value - low
        sixths = (green + blue - red - low) / tl.maximum(chroma, 1e-8) + 1.0
        tl.debug_barrier()
        turns = tl.where(green >= blue, tl.abs(sixths), -tl.abs(sixths)) / 6.0 + shift
        tl.store(own + place, _back(turns + 0.5, value, chroma), mask=inside)
        tl.store(own + pixels + place, _back(turns + 1.0 / 6.0, value, chroma), mask=inside)
        tl.store(own + 2 * pixels + place, _back(turns - 1.0 / 6.0, value, chroma), mask=inside)
    tl.debug_barrier()


@triton.jit
def _back(wave, value, chroma):
    wave = tl.abs(wave - tl.floor(wave + 0.5)) * -6.0 + 2.0
    return value - chroma * tl.minimum(tl.maximum(wave, 0.0), 1.0)
