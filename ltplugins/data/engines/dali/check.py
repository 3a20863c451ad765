# SPDX-License-Identifier: MIT
"""Whether the engine ``dali`` can do what is asked of it, before DALI is imported."""

import dataclasses
import importlib.util
from collections.abc import Sequence

from ltplugins.core.errors import UserError, install
from ltplugins.data.augment.schema import AugmentationBlock

STEPS = {
    "rrc",
    "color_jitter",
    "grayscale",
    "gaussian_blur",
    "solarization",
    "equalization",
    "horizontal_flip",
    "vertical_flip",
    "quarter_turn",
}


def check_dali(blocks: Sequence[AugmentationBlock]) -> None:
    """Raise a UserError where DALI is absent or cannot do a step of the augmentations."""
    if (
        importlib.util.find_spec("nvidia") is None
        or importlib.util.find_spec("nvidia.dali") is None
    ):
        raise UserError(
            "data.engine: dali needs NVIDIA DALI, which is not installed. "
            f"Run {install('dali-cu13')} (CUDA 13, as torch's own builds, or no GPU) or "
            f"{install('dali')} (CUDA 12) in the checkout of ltplugins, or set data.engine: "
            f"batched."
        )
    for i, block in enumerate(blocks):
        for field in dataclasses.fields(block):
            step = getattr(block, field.name)
            if getattr(step, "prob", 0) and field.name not in STEPS:
                raise UserError(
                    f"augmentations[{i}].{field.name}: the engine dali cannot do it. "
                    f"Set data.engine: batched or workers, or {field.name}.prob: 0."
                )
