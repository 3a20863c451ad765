# SPDX-License-Identifier: MIT
"""The deterministic transform in timm's words, and back.

Legend: S pixels a side.
"""

import math
from collections.abc import Mapping
from typing import Any

from ltplugins.core.errors import UserError
from ltplugins.data.augment.deterministic import EvalTransform


def timm_transform(config: Mapping[str, Any], name: str) -> EvalTransform:
    """What timm itself would see a picture through.

    Args:
        config: ``input_size``, ``crop_pct``, ``crop_mode``, ``interpolation``, ``mean``, ``std``.
        name: whose they are, for messages.

    Raises:
        UserError: pictures that are not square, another crop than the centre's, or keys that are
            absent or of another type.
    """
    try:
        _, height, width = (int(n) for n in config["input_size"])
        mode = config.get("crop_mode") or "center"
        if height != width or mode not in ("center", "squash"):
            raise UserError(
                f"{name} takes pictures of {height} x {width} pixels by the crop '{mode}': "
                f"expected square ones, cropped at the centre."
            )
        shorter = math.floor(height / float(config["crop_pct"]))
        mean, std = ([float(n) for n in config[key]] for key in ("mean", "std"))
        resize = (shorter, shorter) if mode == "squash" else shorter
        return EvalTransform(height, mean, std, resize, config["interpolation"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} does not say how it sees a picture ({error!r}).") from None


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
