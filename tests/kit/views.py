# SPDX-License-Identifier: MIT
"""Blocks of augmentations of a tiny run, 16 pixels wide."""

from typing import Any

VIEW = {
    "rrc": {"enabled": True, "crop_min_scale": 0.3, "crop_max_scale": 1.0},
    "color_jitter": {
        "prob": 0.8,
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.2,
        "hue": 0.1,
    },
    "grayscale": {"prob": 0.2},
    "gaussian_blur": {"prob": 0.0},
    "solarization": {"prob": 0.0},
    "equalization": {"prob": 0.0},
    "horizontal_flip": {"prob": 0.5},
    "crop_size": 16,
    "num_crops": 2,
}
PLAIN = {"crop_size": 16, "num_crops": 1}


def views(*counts: int) -> list[dict[str, Any]]:
    """Blocks of augmentations, one a count of views."""
    return [{**VIEW, "num_crops": count} for count in counts]
