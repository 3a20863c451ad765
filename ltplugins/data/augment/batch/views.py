# SPDX-License-Identifier: MIT
"""Views of a whole batch at once, on the device it is on, every sample with its own parameters.

The steps and their order are those of the ``workers`` engine (see pil.py). The operators
work in float and round to 8 bits once, at the end, where PIL rounds after each of them: a quarter
of the bytes to pass between processes, and nothing lost that the other engine has.

Legend: B batch, V views, C channels, R rows = num_crops x B (crop k of image i is row k * B + i),
S crop size.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ltplugins.core.transfer import move
from ltplugins.data.augment.batch import ops
from ltplugins.data.augment.batch.crop import CropPlan
from ltplugins.data.augment.batch.jitter import JitterPlan
from ltplugins.data.augment.batch.randaugment import (
    RandAugmentParams,
    RandAugmentPlan,
    draw_randaugment,
)
from ltplugins.data.augment.params import (
    TurnParams,
    ViewParams,
    draw_params,
    draw_turns,
    sigma_values,
)
from ltplugins.data.augment.schema import AugmentationBlock, normalisation
from ltplugins.data.augment.strength import Boost
from ltplugins.data.sources.records import DataRecord

# On a CPU the rows go through all steps in pieces whose intermediates fit the second-level cache
# (floats a piece); a GPU takes them all at once, to launch as few kernels as possible.
CPU_PIECE = 200_000

# Kernels below this many values are not spread over threads by torch. The training process
# normalises in such pieces: waking threads for so little costs more than the work.
SERIAL = 32_000


class BatchedViews:
    """The batch transform of a list of blocks.

    Args:
        blocks: the ``augmentations`` list.
        record: statistics for the normalisation where a block has none of its own.
        boost: RandAugment follows a strength per image, whatever the blocks say of it.
    """

    def __init__(
        self,
        blocks: Sequence[AugmentationBlock],
        record: DataRecord,
        boost: Boost | None = None,
    ) -> None:
        self.blocks = list(blocks)
        self.record = record
        self.boost = boost
        self.num_views = sum(block.num_crops for block in self.blocks)
        self._constants: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def __call__(
        self,
        images: Tensor | list[Tensor],
        generator: torch.Generator,
        strength: np.ndarray | None = None,
    ) -> list[Tensor]:
        """Augment, then normalise: V tensors Float[B 3 S S] on the device of the images.

        Arguments as of :meth:`augment`.
        """
        return self.normalise(self.augment(images, generator, strength))

    def augment(
        self,
        images: Tensor | list[Tensor],
        generator: torch.Generator,
        strength: np.ndarray | None = None,
    ) -> list[Tensor]:
        """Make the views.

        Args:
            images: uint8 [B, C, H, W] with C = 1 or 3; or V tensors uint8 [B, C, S, S], cropped
                already, in the order of the blocks.
            generator: on the CPU; the views depend on it, the strengths and the images alone.
            strength: Float[B] in [0, 1], of the images; only with ``boost``.

        Returns:
            V tensors uint8 [B, C, S, S] on the device of the images.
        """
        pools = self._pools(images)
        params = [
            draw_params(block, block.num_crops * batch, pool.shape[2], pool.shape[3], generator)
            for block, (pool, batch) in zip(self.blocks, pools, strict=True)
        ]
        # Drawn after everything else, so that switching it on leaves the other numbers alone.
        extras = [
            self._draw_randaugment(block, batch, generator, strength)
            for block, (_, batch) in zip(self.blocks, pools, strict=True)
        ]
        turns = [
            draw_turns(block, block.num_crops * batch, generator)
            for block, (_, batch) in zip(self.blocks, pools, strict=True)
        ]
        views: list[Tensor] = []
        for block, (pool, _), own, turn, extra in zip(
            self.blocks, pools, params, turns, extras, strict=True
        ):
            out = _augment_block(block, pool, own, turn, extra, cropped=isinstance(images, list))
            views += rearrange(out, "(crop b) c h w -> crop b c h w", crop=block.num_crops)
        return views

    def _pools(self, images: Tensor | list[Tensor]) -> list[tuple[Tensor, int]]:
        """Find for every block the images that its rows are made of and the size of the batch."""
        if isinstance(images, Tensor):
            return [(images.contiguous(), len(images))] * len(self.blocks)
        pools, start = [], 0
        for block in self.blocks:
            pool = torch.cat(images[start : start + block.num_crops])
            pools.append((pool, len(pool) // block.num_crops))
            start += block.num_crops
        return pools

    def _draw_randaugment(
        self,
        block: AugmentationBlock,
        batch: int,
        generator: torch.Generator,
        strength: np.ndarray | None,
    ) -> RandAugmentParams | None:
        cfg = block.randaugment if self.boost is None else self.boost.config()
        if not cfg.prob:
            return None
        return draw_randaugment(cfg, block.num_crops, batch, generator, self.boost, strength)

    def normalise(self, views: list[Tensor]) -> list[Tensor]:
        """Normalise every view uint8 [B, C, S, S] to Float[B 3 S S]; one channel becomes three."""
        numbers = [n for n, block in enumerate(self.blocks) for _ in range(block.num_crops)]
        return [self._normalise(number, view) for number, view in zip(numbers, views, strict=True)]

    def _normalise(self, number: int, view: Tensor) -> Tensor:
        scale, shift = self._normaliser(number, view.device)
        if view.device.type != "cpu":
            return torch.addcmul(shift, view.float(), scale)
        batch, _, height, width = view.shape
        out = torch.empty(batch, 3, height, width)
        piece = max(1, SERIAL // (3 * height * width))
        for start in range(0, batch, piece):
            rows = slice(start, start + piece)
            torch.addcmul(shift, view[rows].float(), scale, out=out[rows])
        return out

    def _normaliser(self, number: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Give 1 / (255 std) and -mean / std, Float[1 3 1 1], made once per block and device."""
        key = (number, device)
        if key not in self._constants:
            mean, std = normalisation(self.blocks[number], self.record)
            scale = 1.0 / torch.tensor(list(std), dtype=torch.float64)
            shift = -torch.tensor(list(mean), dtype=torch.float64) * scale
            pair = (v.float().view(1, 3, 1, 1).to(device) for v in (scale / 255.0, shift))
            self._constants[key] = (*pair,)  # type: ignore[assignment]
        return self._constants[key]


def _augment_block(
    block: AugmentationBlock,
    pool: Tensor,
    params: ViewParams,
    turns: TurnParams | None,
    extra: RandAugmentParams | None,
    *,
    cropped: bool,
) -> Tensor:
    """Make all rows of one block, uint8 [R, C, S, S], of ``pool`` uint8 [B or R, C, H, W]."""
    device, channels = pool.device, pool.shape[1]
    rows, size = len(params.flip), block.crop_size
    plan = JitterPlan(block, params.jitter, channels, device)
    crops = CropPlan(block, params, plan.order, pool.shape[2:], device, cropped=cropped)
    randaugment = None if extra is None else RandAugmentPlan(extra, size)
    out = torch.empty(rows, channels, size, size, dtype=torch.uint8, device=device)
    piece = rows if device.type != "cpu" else max(1, CPU_PIECE // (channels * size**2))
    for start in range(0, rows, piece):
        # Rows of one colour order lie beside each other; they are put back at the end.
        chosen = plan.order[start : start + piece]
        x = pool.index_select(0, move(chosen % len(pool), device)).float().div_(255.0)
        x = crops.apply(x, start)
        plan.apply_(x, start)
        x = _filter(x, block, params, chosen)
        if turns is not None:
            x = _turn(x, turns, chosen)
        if randaugment is not None:
            randaugment.apply_(x, chosen)
        # int() of x + 1/2 rounds to nearest; by way of int32 it is twice as fast as directly.
        out[start : start + piece] = x.mul_(255.0).add_(0.5).int()
    return out.index_select(0, move(plan.order.argsort(), device))


def _filter(x: Tensor, block: AugmentationBlock, params: ViewParams, chosen: Tensor) -> Tensor:
    """Turn grey, blur, solarize and equalize the rows that need it, in place."""

    def rows_of(mask: Tensor) -> Tensor:
        return mask[chosen].nonzero().squeeze(1)

    if block.grayscale.prob and x.shape[1] == 3 and len(rows := rows_of(params.grey)):
        rows = move(rows, x.device)
        x.index_copy_(0, rows, ops.luma(x.index_select(0, rows)).expand(-1, 3, -1, -1))
    if block.gaussian_blur.prob and len(rows := rows_of(params.blur)):
        kernels = _blur_kernels(*block.gaussian_blur.sigma, block.crop_size, x.device)
        kernel = kernels.index_select(0, move(params.sigma_level[chosen[rows]], x.device))
        rows = move(rows, x.device)
        x.index_copy_(0, rows, ops.apply_separable(x.index_select(0, rows), kernel, kernel))
    for prob, mask, step in (
        (block.solarization.prob, params.solarize, ops.solarize),
        (block.equalization.prob, params.equalize, ops.equalize),
    ):
        if prob and len(rows := rows_of(mask)):
            rows = move(rows, x.device)
            x.index_copy_(0, rows, step(x.index_select(0, rows)))
    return x


def _turn(x: Tensor, turns: TurnParams, chosen: Tensor) -> Tensor:
    """Flip upside down, then turn anticlockwise, the rows that need it, in place."""
    for mask, turned in (
        (turns.vertical, lambda rows: rows.flip(2)),
        (turns.quarter, lambda rows: rows.rot90(1, (2, 3))),
    ):
        rows = move(mask[chosen].nonzero().squeeze(1), x.device)
        x.index_copy_(0, rows, turned(x.index_select(0, rows)))
    return x


@lru_cache(maxsize=8)
def _blur_kernels(low: float, high: float, size: int, device: torch.device) -> Tensor:
    """Make the blur matrix of every value that sigma takes: Float[SIGMA_LEVELS size size]."""
    return ops.blur_matrix(sigma_values((low, high)), size).to(device)
