# SPDX-License-Identifier: MIT
"""RandAugment of a whole batch: parameters drawn on the CPU, operations of one kind together.

Operations that share a formula go through it together: the five geometric ones are one affine map,
brightness, contrast and colour one mixture, invert is solarize from level 0. A step of RandAugment
is so at most eight groups of rows, whatever the batch.

Legend: K operations a view, R rows = num_crops x B samples; row k * B + i is crop k of image i.
S crop size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ltplugins.core.transfer import move
from ltplugins.data.augment.batch import enhance, ops
from ltplugins.data.augment.randaugment import (
    CUTOUT_GREY,
    OPERATIONS,
    SPACES,
    cutout_span,
    whole_bits,
)
from ltplugins.data.augment.schema import RandAugmentConfig
from ltplugins.data.augment.strength import Boost

_CODE = {name: code for code, name in enumerate(OPERATIONS)}


@dataclass(frozen=True)
class RandAugmentParams:
    """Everything random about the RandAugment of R rows.

    Attributes:
        code: Int[K R], into ``OPERATIONS``; 0 where the operation is not applied.
        value: Float[K R].
        place: Float[2 K R], centre of a cutout as shares of the sides.
    """

    code: Tensor
    value: Tensor
    place: Tensor


def draw_randaugment(
    cfg: RandAugmentConfig,
    num_crops: int,
    batch: int,
    generator: torch.Generator,
    boost: Boost | None = None,
    strength: np.ndarray | None = None,
) -> RandAugmentParams:
    """Draw the parameters of ``num_crops`` views of ``batch`` images.

    The number of draws depends on the counts alone, never on probabilities or strengths.

    Args:
        cfg: of the block.
        boost: probability and magnitude follow the strength.
        strength: Float[B]; all 0 if not given.
    """
    rows = num_crops * batch
    which, coin, sign, x, y = torch.rand(5, cfg.num_ops, rows, generator=generator).unbind(0)
    prob: float | Tensor = cfg.prob
    magnitude: float | Tensor = cfg.magnitude
    if boost is not None:
        # One factor for all views of an image, as in BCL's official code.
        factor = torch.rand(batch, generator=generator)
        known = torch.zeros(batch) if strength is None else torch.from_numpy(strength)
        prob = known.repeat(num_crops)
        magnitude = boost.magnitude(known, factor).repeat(num_crops)
    space = SPACES[cfg.ops]
    codes = torch.tensor([_CODE[name] for name in space])
    low, high, signed = torch.tensor([list(map(float, space[name])) for name in space]).T
    chosen = (which * len(space)).long()
    value = low[chosen] + (high - low)[chosen] * magnitude / 30.0
    value = torch.where((sign < 0.5) & (signed[chosen] > 0), -value, value)
    return RandAugmentParams(torch.where(coin < prob, codes[chosen], 0), value, torch.stack([x, y]))


class RandAugmentPlan:
    """RandAugment of the rows of one block.

    Args:
        params: of the rows.
        size: S.
    """

    def __init__(self, params: RandAugmentParams, size: int) -> None:
        self.group = _GROUP_OF[params.code]
        self.arguments = operator_arguments(params.code, params.value, params.place, size)

    def apply_(self, x: Tensor, chosen: Tensor) -> None:
        """Augment in place ``x`` Float[B C S S], which holds the rows ``chosen``."""
        for group, arguments in zip(self.group, self.arguments, strict=True):
            order = group[chosen].argsort(stable=True)
            counts = torch.bincount(group[chosen], minlength=len(_GROUPS)).tolist()
            rows = move(order, x.device)
            own = move(arguments[chosen[order]], x.device)
            start = 0
            for count, (_, operator) in zip(counts, _GROUPS, strict=True):
                if count and operator is not None:
                    part = slice(start, start + count)
                    out = operator(x.index_select(0, rows[part]), own[part])
                    x.index_copy_(0, rows[part], out)
                start += count


def operator_arguments(code: Tensor, value: Tensor, place: Tensor, size: int) -> Tensor:
    """Put what each row's operator takes into the first of six columns: Float[... 6].

    Args:
        code: Int[...], into ``OPERATIONS``.
        value: Float[...], see the table in ``randaugment.py``.
        place: Float[2 ...].
        size: S.
    """
    out = torch.zeros(*value.shape, 6)
    for name, columns in _ARGUMENTS.items():
        rows = code == _CODE[name]
        if bool(rows.any()):
            values = columns(value[rows], place[:, rows], size)
            for i, column in enumerate(values):
                out[..., i][rows] = column
    return out


_Column = float | Tensor


def _rotation(value: Tensor, size: int) -> tuple[_Column, ...]:
    """Rotate about the centre, against the clock for positive degrees."""
    cos, sin = torch.cos(value * math.pi / 180.0), torch.sin(value * math.pi / 180.0)
    half = size / 2.0
    return cos, -sin, half - half * (cos - sin), sin, cos, half - half * (sin + cos)


def _cutout_box(value: Tensor, place: Tensor, size: int) -> tuple[_Column, ...]:
    spans = (cutout_span(centre, value, size) for centre in place)
    return tuple(edge for span in spans for edge in span)


# Values of the rows of one operation, places, S -> the columns of its arguments.
_ARGUMENTS: dict[str, Callable[[Tensor, Tensor, int], tuple[_Column, ...]]] = {
    "shear_x": lambda v, p, s: (1.0, v, 0.0, 0.0, 1.0, 0.0),
    "shear_y": lambda v, p, s: (1.0, 0.0, 0.0, v, 1.0, 0.0),
    "translate_x": lambda v, p, s: (1.0, 0.0, -(v * s).round(), 0.0, 1.0, 0.0),
    "translate_y": lambda v, p, s: (1.0, 0.0, 0.0, 0.0, 1.0, -(v * s).round()),
    "rotate": lambda v, p, s: _rotation(v, s),
    "brightness": lambda v, p, s: (1.0 + v, 0.0, 0.0),
    "color": lambda v, p, s: (1.0 + v, -v, 0.0),
    "contrast": lambda v, p, s: (1.0 + v, 0.0, -v),
    "sharpness": lambda v, p, s: (1.0 + v,),
    "posterize": lambda v, p, s: (whole_bits(v),),
    "solarize": lambda v, p, s: (v,),
    "invert": lambda v, p, s: (0.0,),
    "cutout": _cutout_box,
}


def _geometry(x: Tensor, arguments: Tensor) -> Tensor:
    return enhance.warp(x, arguments)


def _colour(x: Tensor, arguments: Tensor) -> Tensor:
    return ops.adjust_affine_(x, *arguments[:, :3].unbind(1))


def _cutout(x: Tensor, arguments: Tensor) -> Tensor:
    return enhance.cut_out(x, arguments[:, :4], CUTOUT_GREY / 255.0)


_Operator = Callable[[Tensor, Tensor], Tensor]
_GROUPS: tuple[tuple[tuple[str, ...], _Operator | None], ...] = (
    (("identity",), None),
    (("shear_x", "shear_y", "translate_x", "translate_y", "rotate"), _geometry),
    (("brightness", "color", "contrast"), _colour),
    (("sharpness",), lambda x, a: enhance.sharpen(x, a[:, 0])),
    (("posterize",), lambda x, a: enhance.posterize(x, a[:, 0])),
    (("solarize", "invert"), lambda x, a: enhance.solarize_from(x, a[:, 0])),
    (("autocontrast",), lambda x, a: enhance.autocontrast(x)),
    (("equalize",), lambda x, a: ops.equalize(x)),
    (("cutout",), _cutout),
)
_GROUP_OF = torch.tensor(
    [next(g for g, (names, _) in enumerate(_GROUPS) if name in names) for name in OPERATIONS]
)
