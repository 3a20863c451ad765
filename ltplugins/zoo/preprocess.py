# SPDX-License-Identifier: MIT
"""The deterministic transform in timm's words, and back.

Legend: S pixels a side.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ltplugins.core.errors import UserError
from ltplugins.core.ranges import Above, AtLeast, Length, Within
from ltplugins.core.schema import check, parse
from ltplugins.data.augment.deterministic import EvalTransform


@dataclasses.dataclass(frozen=True)
class _Seen:
    """The keys of timm's that are read; a stranger's file may have any values."""

    input_size: Annotated[list[Annotated[int, AtLeast(2)]], Length(3)]
    crop_pct: Annotated[float, Within(0.01, 2)]  # timm's own go from 0.875 to 1.15
    interpolation: Literal[
        "bilinear", "bicubic", "nearest", "nearest-exact", "box", "hamming", "lanczos"
    ]
    mean: Annotated[list[float], Length(3)]
    std: Annotated[list[Annotated[float, Above(0)]], Length(3)]
    crop_mode: str | None = None


def timm_transform(config: Mapping[str, Any], name: str) -> EvalTransform:
    """What timm itself would see a picture through.

    Args:
        config: ``input_size``, ``crop_pct``, ``crop_mode``, ``interpolation``, ``mean``, ``std``.
        name: whose they are, for messages.

    Raises:
        UserError: pictures that are not square, another crop than the centre's, or keys that are
            absent, of another type or out of range.
    """
    keys = [field.name for field in dataclasses.fields(_Seen)]
    try:
        given = check(config, dict, "pretrained_cfg")
        seen = parse(_Seen, {key: given[key] for key in keys if key in given}, "")
    except UserError as error:
        raise UserError(f"{name} does not say how it sees a picture: {error}") from None
    _, height, width = seen.input_size
    mode = seen.crop_mode or "center"
    if height != width or mode not in ("center", "squash"):
        raise UserError(
            f"{name} takes pictures of {height} x {width} pixels by the crop '{mode}': "
            f"expected square ones, cropped at the centre."
        )
    shorter = math.floor(height / seen.crop_pct)
    resize = (shorter, shorter) if mode == "squash" else shorter
    return EvalTransform(height, seen.mean, seen.std, resize, seen.interpolation)


def timm_keys(transform: EvalTransform) -> dict[str, Any]:
    """The keys of :func:`timm_transform` for a transform.

    >>> keys = timm_keys(EvalTransform(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    >>> keys["input_size"], keys["crop_pct"], timm_transform(keys, "x").resize
    ([3, 224, 224], 0.875, 256)
    """
    size, resize = transform.size, transform.resize
    shorter = resize if isinstance(resize, int) else resize[0]
    share = size / shorter
    if math.floor(size / share) != shorter:  # by the last bit
        share = math.nextafter(share, 0.0)
    return {
        "input_size": [3, size, size],
        "interpolation": transform.interpolation,
        "crop_pct": share,
        "crop_mode": "center" if isinstance(resize, int) else "squash",
        "mean": list(transform.mean),
        "std": list(transform.std),
    }
