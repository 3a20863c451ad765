# SPDX-License-Identifier: MIT
"""RandAugment: operations, their ranges, and the step of one image; both engines read the table.

Paper: Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search
space", 2020, https://arxiv.org/abs/1909.13719

``num_ops`` operations are drawn with replacement, each is applied with probability ``prob``, at
magnitude m of 30. They come last, after the flip, as in BCL's official transform. Lists (``ops``):

========================  ====================  ==================  ==============================
operation                 torchvision (default) bcl                 the value is
========================  ====================  ==================  ==============================
shear_x, shear_y          +-(0 to 0.3)          +-(0 to 0.6)        tangent, about the corner
translate_x, translate_y  +-(0 to 150/331)      +-(0 to 0.66)       share of the side
rotate                    +-(0 to 30)           +-(0 to 60)         degrees
brightness, color,        1 +- (0 to 0.9)       0.1 to 1.9          factor
contrast, sharpness
posterize                 8 to 4                4 to 8              bits that are kept
solarize                  255 to 0              0 to 110            lowest level that is inverted
autocontrast, equalize    yes                   yes                 -
identity                  yes                   -                   -
invert, cutout            -                     yes; 0 to 0.4       side of the square, a share
========================  ====================  ==================  ==============================

``torchvision`` is torchvision's RandAugment. ``bcl`` is the list of BCL's official code
(https://github.com/MediaBrain-SJTU/BCL at a2342f8), where a larger magnitude is not always a larger
change: factors are 1 at 15, posterize does nothing at 30. Differences: a translation is rounded to
whole pixels (torchvision cuts the fraction off, BCL's code rounds by its sampling); cutout is
filled with grey 123, officially (125, 123, 114), and its square is not cut at the width in height.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from PIL import Image
from torchvision.transforms import functional as F

from ltplugins.data.augment.schema import RandAugmentConfig

MAX_MAGNITUDE = 30.0
CUTOUT_GREY = 123


class Range(NamedTuple):
    """Values at magnitude 0 and 30; ``signed``: negated in half of the draws."""

    low: float = 0.0
    high: float = 0.0
    signed: bool = False

    def value(self, magnitude: Any) -> Any:
        """Interpolate the value at ``magnitude``, a number or a tensor."""
        return self.low + (self.high - self.low) * magnitude / MAX_MAGNITUDE


def _factors(space: Range) -> dict[str, Range]:
    return dict.fromkeys(("brightness", "color", "contrast", "sharpness"), space)


# Factors are written as what is added to 1.
SPACES: dict[str, dict[str, Range]] = {
    "torchvision": {
        "identity": Range(),
        **dict.fromkeys(("shear_x", "shear_y"), Range(0.0, 0.3, True)),
        **dict.fromkeys(("translate_x", "translate_y"), Range(0.0, 150.0 / 331.0, True)),
        "rotate": Range(0.0, 30.0, True),
        **_factors(Range(0.0, 0.9, True)),
        "posterize": Range(8.0, 4.0),
        "solarize": Range(255.0, 0.0),
        "autocontrast": Range(),
        "equalize": Range(),
    },
    "bcl": {
        **dict.fromkeys(("shear_x", "shear_y"), Range(0.0, 0.6, True)),
        **dict.fromkeys(("translate_x", "translate_y"), Range(0.0, 0.66, True)),
        "rotate": Range(0.0, 60.0, True),
        **_factors(Range(-0.9, 0.9)),
        # Half a bit lower: officially bits are cut off, here they are rounded.
        "posterize": Range(3.5, 7.5),
        "solarize": Range(0.0, 110.0),
        "autocontrast": Range(),
        "equalize": Range(),
        "invert": Range(),
        "cutout": Range(0.0, 0.4),
    },
}
# A name's code is its place here; 0 changes nothing.
OPERATIONS: tuple[str, ...] = (*SPACES["torchvision"], "invert", "cutout")


def whole_bits(value: Any) -> Any:
    """Round ``value``, a number or a tensor, to the bits that posterize keeps."""
    return (value + 0.5) // 1


def cutout_span(centre: Any, value: Any, size: int) -> tuple[Any, Any]:
    """Find first pixel and end of a cutout along one axis, before it is cut at the border.

    Args:
        centre: where the square would be centred, a share of the side; a number or a tensor.
        value: side of the square, a share.
        size: pixels of the axis.
    """
    first = (centre * size - value * size / 2.0) // 1
    first = first * (first > 0)
    return first, first + ((value * size) // 1 + 1) * (value > 0)


class RandAugment:
    """The step of one PIL image.

    Args:
        cfg: of the block.
    """

    def __init__(self, cfg: RandAugmentConfig) -> None:
        self.cfg = cfg
        self.space = list(SPACES[cfg.ops].items())

    def __call__(self, image: Image.Image, prob: float, magnitude: float) -> Image.Image:
        """Draw from torch's global generator, as many numbers whatever the arguments are."""
        for which, coin, sign, x, y in torch.rand(self.cfg.num_ops, 5).tolist():
            if coin >= prob:
                continue
            name, values = self.space[int(which * len(self.space))]
            value = values.value(magnitude)
            image = apply_pil(image, name, -value if values.signed and sign < 0.5 else value, x, y)
        return image


def apply_pil(
    image: Image.Image, name: str, value: float, x: float = 0.5, y: float = 0.5
) -> Image.Image:
    """Apply one operation to one image.

    Args:
        image: RGB.
        name: of ``OPERATIONS``.
        value: see the table.
        x, y: centre of the cutout, shares of the sides.
    """
    if name == "cutout":
        spans = (cutout_span(c, value, s) for c, s in zip((x, y), image.size, strict=True))
        (left, right), (top, bottom) = spans
        image = image.copy()
        image.paste((CUTOUT_GREY,) * 3, (int(left), int(top), int(right), int(bottom)))
        return image
    return _PIL[name](image, value)


def _affine(image: Image.Image, **changes: Any) -> Image.Image:
    plain: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return F.affine(image, **{**plain, **changes})


def _degrees(tangent: float) -> float:
    return math.degrees(math.atan(tangent))


_PIL: dict[str, Callable[[Any, float], Any]] = {
    "identity": lambda image, v: image,
    "shear_x": lambda image, v: _affine(image, shear=[_degrees(v), 0.0], center=[0, 0]),
    "shear_y": lambda image, v: _affine(image, shear=[0.0, _degrees(v)], center=[0, 0]),
    "translate_x": lambda image, v: _affine(image, translate=[round(v * image.size[0]), 0]),
    "translate_y": lambda image, v: _affine(image, translate=[0, round(v * image.size[1])]),
    "rotate": lambda image, v: F.rotate(image, v),
    "brightness": lambda image, v: F.adjust_brightness(image, 1.0 + v),
    "color": lambda image, v: F.adjust_saturation(image, 1.0 + v),
    "contrast": lambda image, v: F.adjust_contrast(image, 1.0 + v),
    "sharpness": lambda image, v: F.adjust_sharpness(image, 1.0 + v),
    "posterize": lambda image, v: F.posterize(image, int(whole_bits(v))),
    "solarize": lambda image, v: F.solarize(image, v),
    "autocontrast": lambda image, v: F.autocontrast(image),
    "equalize": lambda image, v: F.equalize(image),
    "invert": lambda image, v: F.invert(image),
}
