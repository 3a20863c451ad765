# SPDX-License-Identifier: MIT
"""What images and masks go through together: torchvision's v2 transforms on ``tv_tensors``.

An image's draws depend on (seed, epoch, index) alone, so that neither the number of workers nor a
resumed run changes them.

Legend: H, W of an image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ltplugins.core.seeding import mix_seed
from ltplugins.downstream.segmentation.options import IGNORE, ViewConfig

FILE_CROP, _FILE_SCALE = 512, (0.5, 2.0)  # of images in files


class QuarterTurn(v2.Transform):
    """Turn by 90 degrees anticlockwise, image and mask alike.

    Args:
        p: chance.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw once for all inputs."""
        return {"turn": bool(torch.rand(1) < self.p)}

    def transform(self, x: Any, params: dict[str, Any]) -> Any:
        """Turn one input."""
        if not params["turn"]:
            return x
        return tv_tensors.wrap(torch.rot90(x, 1, (-2, -1)), like=x)


class Normalise:
    """The last step, of training and test images alike: Float[3 H W] by mean and std.

    Args:
        mean, std: per channel, in [0, 1]; those that the encoder was trained with.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = list(mean), list(std)

    def __call__(self, image: Tensor) -> Tensor:
        return F.normalize(image.to(torch.float32).div(255), self.mean, self.std)


class TrainView:
    """From uint8 [H W 3] and [H W] to a tensor Float[3 S S] and its mask Int[S S].

    Args:
        cfg: of the steps.
        is_land: whether images are land_pack's, for what ``cfg`` leaves open.
        normalise: the last step.
        seed: of the run.
    """

    def __init__(self, cfg: ViewConfig, is_land: bool, normalise: Normalise, seed: int) -> None:
        self.normalise, self.seed = normalise, seed
        self.steps = v2.Compose(_steps(cfg, is_land, normalise.mean))

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, epoch: int, index: int
    ) -> tuple[Tensor, Tensor]:
        pixels = tv_tensors.Image(torch.from_numpy(image.copy()).permute(2, 0, 1))
        labels = tv_tensors.Mask(torch.from_numpy(mask.copy()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix_seed(self.seed, epoch, index))
            pixels, labels = self.steps(pixels, labels)
        return self.normalise(pixels.as_subclass(Tensor)), labels.as_subclass(Tensor).long()


class PlainView:
    """The same without any draw, at the image's own size.

    Args:
        normalise: the only step.
    """

    def __init__(self, normalise: Normalise) -> None:
        self.normalise = normalise

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
        return self.normalise(pixels), torch.from_numpy(mask.copy()).long()


def _steps(cfg: ViewConfig, is_land: bool, mean: Sequence[float]) -> list[v2.Transform]:
    turns = 0.5 if is_land else 0.0
    vertical, quarter = (turns if p is None else p for p in (cfg.vertical_flip, cfg.quarter_turn))
    crop = cfg.crop or (None if is_land else FILE_CROP)
    scale = cfg.scale or (None if is_land else _FILE_SCALE)
    steps: list[v2.Transform] = []
    if crop is not None:
        grey = [round(255 * m) for m in mean]
        if scale is not None:
            steps.append(v2.ScaleJitter((crop, crop), tuple(scale), antialias=True))
        fill: Any = {tv_tensors.Image: grey, tv_tensors.Mask: IGNORE}
        steps.append(v2.RandomCrop(crop, pad_if_needed=True, fill=fill))
    steps += [v2.RandomHorizontalFlip(cfg.horizontal_flip), v2.RandomVerticalFlip(vertical)]
    steps.append(QuarterTurn(quarter))
    jitter = (cfg.brightness, cfg.contrast, cfg.saturation, cfg.hue)
    if any(jitter):
        steps.append(v2.ColorJitter(*jitter))
    return steps
