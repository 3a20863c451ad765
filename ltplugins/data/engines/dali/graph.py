# SPDX-License-Identifier: MIT
"""The DALI graph of the ``dali`` engine: decode, crop, augment and normalise a batch.

It is imported only where DALI is. Steps, their order and their rounding to 8 bits after each are
those of the ``workers`` engine (see augment/pil.py). Differences, on a CPU as measured by
tests/data/engines/dali/test_graph.py:
- bicubic resize: repeats the border's pixel where PIL cuts the kernel; inside, a few levels of 255;
- blur: a true Gaussian with mirrored borders, where PIL chains three box blurs and repeats them;
- equalize: OpenCV's definition, where PIL's steps are whole numbers of pixels.

Jitter has a random order for every sample and shifts the hue of HSV, as in the other engines.
DALI's own ``color_twist`` has one order for all and turns a linear approximation of the hue, so the
shift is written in its arithmetic here. A sample passes three slots of brightness, contrast or
saturation before or after the shift; ``if`` on a sample's number splits and joins the batch.

Legend: V views, S crop size, C channels.
"""

# ruff: noqa: SIM102 - an `if` on Python's values is another than one on a sample's number

from collections.abc import Sequence
from typing import Any

from nvidia.dali import fn, math, pipeline_def, types
from nvidia.dali.pipeline import do_not_convert

from ltplugins.data.augment.schema import AugmentationBlock
from ltplugins.data.engines.dali.feed import SLOTS, VIEW_INPUTS, needed_inputs

View = dict[str, Any]  # the numbers of a view
_DTYPES = {"b": types.BOOL, "i": types.INT32, "f": types.FLOAT}
_HUE_CENTRES = ((3.0, 1.0, -1.0), (2.0, -1.0, 2.0), (4.0, -1.0, 2.0))


@pipeline_def(enable_conditionals=True)
def views_pipeline(
    source: Any,
    blocks: Sequence[AugmentationBlock],
    statistics: Sequence[tuple[Sequence[float], Sequence[float]]],
    shape: tuple[int, ...] | None,
    device: str,
) -> tuple[Any, ...]:
    """Build the graph that gives indexes Int64 and, for every view, Float[B 3 S S].

    Args:
        source: gives the arrays of a batch: indexes, images, each view's ``needed_inputs``.
        blocks: the ``augmentations`` list.
        statistics: mean and std of every block, for pixels in [0, 1].
        shape: H, W, C of images in memory; None for encoded files.
        device: ``cpu`` or ``gpu``.
    """
    views = [block for block in blocks for _ in range(block.num_crops)]
    indexes, data, numbers = _inputs(source, [needed_inputs(b, shape) for b in views], shape)
    image = _decode(data, shape is None, device)
    colour = shape is None or shape[2] == 3
    outputs = []
    for i, block in enumerate(views):
        x = _crop(image, block, numbers[i])
        x = _jitter(x, numbers[i], colour)
        x = _filter(x, numbers[i])
        x = _turn(x, numbers[i])
        mean, std = statistics[blocks.index(block)]
        outputs.append(_normalise(x, mean, std, colour))
    return (indexes, *outputs)


@do_not_convert
def _inputs(
    source: Any, names: list[list[str]], shape: tuple[int, ...] | None
) -> tuple[Any, Any, list[View]]:
    kinds = [VIEW_INPUTS[name] for view in names for name in view]
    encoded = shape is None
    inputs = iter(
        fn.external_source(
            source=source,
            num_outputs=2 + len(kinds),
            dtype=[types.INT64, types.UINT8, *(_DTYPES[kind] for kind, _ in kinds)],
            ndim=[0, 1 if encoded else 3, *(ndim for _, ndim in kinds)],
            layout=["", "" if encoded else "HWC", *("" for _ in kinds)],
        )
    )
    return next(inputs), next(inputs), [{name: next(inputs) for name in view} for view in names]


def _decode(data: Any, encoded: bool, device: str) -> Any:
    if not encoded:
        return data.gpu() if device == "gpu" else data
    # As PIL decodes: no turn by the EXIF tag, chroma upsampled by the triangle filter.
    return fn.decoders.image(
        data,
        device="mixed" if device == "gpu" else "cpu",
        output_type=types.RGB,
        adjust_orientation=False,
        jpeg_fancy_upsampling=True,
    )


def _crop(image: Any, block: AugmentationBlock, view: View) -> Any:
    size = [block.crop_size, block.crop_size]
    cubic = {"interp_type": types.INTERP_CUBIC, "antialias": True}
    if block.rrc.enabled:
        # Cut first: a resize of a region of interest would read pixels beyond it.
        box = fn.slice(image, start=view["start"], shape=view["shape"], axes=[0, 1])
        # A region that runs backwards is a flip.
        region = {"roi_start": view["roi_start"], "roi_end": view["roi_end"]}
        return fn.resize(box, size=size, roi_relative=True, **region, **cubic)
    if "shape" in view:
        sides = fn.cast(view["shape"], dtype=types.FLOAT)
        image = fn.resize(image, size=sides, **cubic)
        image = fn.slice(image, start=view["start"], shape=size, axes=[0, 1])
    return fn.flip(image, horizontal=view["flip"])


def _jitter(x: Any, view: View, colour: bool) -> Any:
    if "early" not in view:
        return x
    for slot in range(SLOTS):
        if view["early"][slot]:
            x = _adjust(x, view, slot, colour)
    if "hue" in view:
        if view["jitters"]:
            x = _shift_hue(x, view["hue"])
    for slot in range(SLOTS):
        if view["late"][slot]:
            x = _adjust(x, view, slot, colour)
    return x


def _adjust(x: Any, view: View, slot: int, colour: bool) -> Any:
    """Change brightness, contrast or saturation: two of the three factors are 1."""
    grey = _luma(x) if colour else x
    mean = fn.reductions.mean(grey, axes=[0, 1, 2], dtype=types.FLOAT)
    x = fn.brightness_contrast(
        x,
        brightness=view["brightness"][slot],
        contrast=view["contrast"][slot],
        # An operator's argument is read on the CPU, wherever its images are.
        contrast_center=mean.cpu(),
    )
    if colour:
        if view["saturates"][slot]:
            x = fn.saturation(x, saturation=view["saturation"][slot])
    return x


def _shift_hue(x: Any, turns: Any) -> Any:
    """Turn the hue and keep saturation and value of HSV, uint8 [S, S, 3].

    With m = min, c = max - m and the hue h in sixths of a turn, channel n of the map back is
    m + c * clamp(s_n |h - o_n| + t_n, 0, 1) with h in [0, 6).
    """
    red, green, blue = (x[:, :, n : n + 1] for n in range(3))
    high = fn.cast(math.max(math.max(red, green), blue), dtype=types.FLOAT)
    low = fn.cast(math.min(math.min(red, green), blue), dtype=types.FLOAT)
    chroma = high - low
    # The three cases of the usual definition in one (see augment/batch/ops.py).
    size = (fn.cast(green, dtype=types.FLOAT) + blue - red - low) / math.max(chroma, 0.5) + 1.0
    hue = fn.cast(green >= blue, dtype=types.FLOAT) * 2.0 - 1.0
    hue = hue * size + turns * 6.0
    hue = hue - math.floor(hue * (1.0 / 6.0)) * 6.0
    channels = [
        low + chroma * math.clamp(math.abs(hue - centre) * sign + offset, 0.0, 1.0)
        for centre, sign, offset in _HUE_CENTRES
    ]
    return fn.cat(*(fn.cast(c, dtype=types.UINT8) for c in channels), axis=2)


def _luma(x: Any) -> Any:
    return fn.color_space_conversion(x, image_type=types.RGB, output_type=types.GRAY)


def _filter(x: Any, view: View) -> Any:
    """Turn grey, blur, solarize and equalize the samples that need it."""
    if "grey" in view:
        if view["grey"]:
            grey = _luma(x)
            x = fn.cat(grey, grey, grey, axis=2)
    if "blur" in view:
        if view["blur"]:
            x = fn.gaussian_blur(x, sigma=view["sigma"])
    if "solarize" in view:
        if view["solarize"]:
            inverted = [v if v < 128 else 255 - v for v in range(256)]
            x = fn.lookup_table(x, keys=list(range(256)), values=inverted, dtype=types.UINT8)
    if "equalize" in view:
        if view["equalize"]:
            x = fn.equalize(x)
    return x


def _turn(x: Any, view: View) -> Any:
    """Flip upside down, then turn anticlockwise: mirrored at the diagonal, then upside down."""
    if "flip_vertical" in view:
        x = fn.flip(x, horizontal=0, vertical=view["flip_vertical"])
    if "turn" in view:
        if view["turn"]:
            mirrored = fn.transpose(x, perm=[1, 0, 2], transpose_layout=False)
            x = fn.flip(mirrored, horizontal=0, vertical=1)
    return x


def _normalise(x: Any, mean: Sequence[float], std: Sequence[float], colour: bool) -> Any:
    if not colour:
        x = fn.cat(x, x, x, axis=2)
    return fn.crop_mirror_normalize(
        x,
        mean=[255.0 * v for v in mean],
        std=[255.0 * v for v in std],
        dtype=types.FLOAT,
        output_layout="CHW",
    )


@pipeline_def
def decode_pipeline(data: Any) -> Any:
    """Decode one file again and again, to see whether DALI can."""
    encoded = fn.external_source(source=lambda: [data], dtype=types.UINT8, ndim=1)
    return _decode(encoded, True, "cpu")
