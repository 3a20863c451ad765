# SPDX-License-Identifier: MIT
"""Crop, resize and flip of a batch, by two matrices for each image.

On a CPU their few weights are found for all rows at once, and the matrices piece by piece; on a GPU
one kernel writes all of them.

Legend: R rows, H, W height and width of the images, S crop size.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ltplugins.core.kernels import NoKernel, building, give_up, runs_kernel
from ltplugins.core.transfer import move
from ltplugins.data.augment.batch import ops
from ltplugins.data.augment.params import CropParams, ViewParams
from ltplugins.data.augment.schema import AugmentationBlock

_KERNEL = "crops"


class CropPlan:
    """The geometry of R rows.

    Args:
        block: of the YAML.
        params: of the rows.
        order: Int[R], the order in which the rows come to :meth:`apply`.
        shape: H, W.
        device: of the images.
        cropped: the images are crops of S pixels already; only the flip is left.
    """

    def __init__(
        self,
        block: AugmentationBlock,
        params: ViewParams,
        order: Tensor,
        shape: Sequence[int],
        device: torch.device,
        *,
        cropped: bool,
    ) -> None:
        self.size, self.device = block.crop_size, device
        self.height, self.width = shape
        self.flip = params.flip[order]
        self.any_flip = block.horizontal_flip.prob > 0
        self.crop = None if cropped else params.crop
        self._weights: list[tuple[Tensor, Tensor]] = []
        self._matrices: list[Tensor] = []
        if self.crop is not None:
            axes = self._axes(self.crop, params.flip, order)
            self._matrices = self._at_once(axes)
            self._weights = [] if self._matrices else self._taps(axes)

    def apply(self, x: Tensor, start: int) -> Tensor:
        """Crop, resize and flip ``x`` Float[B C H W], rows start to start + B: Float[B C S S]."""
        piece = slice(start, start + len(x))
        if self.crop is not None:
            rows, columns = self._matrices_of(piece)
            return ops.apply_separable(x, rows, columns)
        if self.height == self.width == self.size:
            return self._mirror(x, self.flip[piece]) if self.any_flip else x
        return self._resize(x, self.flip[piece])

    def _matrices_of(self, piece: slice) -> list[Tensor]:
        """Of the vertical and the horizontal axis: Float[B S H], Float[B S W]."""
        if self._matrices:
            return [matrices[piece] for matrices in self._matrices]
        sides = self.height, self.width
        return [
            ops.dense_matrix(pixel[piece], weight[piece], side)
            for (pixel, weight), side in zip(self._weights, sides, strict=True)
        ]

    def _axes(self, crop: CropParams, flip: Tensor, order: Tensor) -> list[tuple[int, Tensor]]:
        """Pixels of an axis and Float[3 rows], its starts, lengths and flips, in one copy.

        Of square images one for both, of 2 R rows: on a device it is launches that take the time.
        """
        upright = torch.zeros_like(crop.top)
        boxes = [crop.top, crop.left, crop.height, crop.width, upright, flip.float()]
        both = move(torch.stack(boxes)[:, order], self.device).view(3, 2, -1)
        if self.height == self.width:
            return [(self.height, both.flatten(1))]
        return [(self.height, both[:, 0].contiguous()), (self.width, both[:, 1].contiguous())]

    def _taps(self, axes: list[tuple[int, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """The pixels and weights of the vertical and the horizontal axis, each [R S taps]."""
        pixels, weights = zip(*(self._weigh(side, rows) for side, rows in axes), strict=True)
        return list(zip(_of_both(pixels), _of_both(weights), strict=True))

    def _weigh(self, side: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        start, length, flip = rows
        taps = ops.resample_taps(side, self.size)
        return ops.resample_weights(start, length, flip, side, self.size, taps)

    def _at_once(self, axes: list[tuple[int, Tensor]]) -> list[Tensor]:
        """Both axes' matrices by the kernel; none where it does not run."""
        if not runs_kernel(_KERNEL, axes[0][1]):
            return []
        try:
            made = [torch.ops.ltplugins.crop_matrices(rows, n, self.size) for n, rows in axes]
        except NoKernel as error:
            give_up(_KERNEL, error)
            return []
        return _of_both(made)

    def _mirror(self, x: Tensor, flip: Tensor) -> Tensor:
        chosen = move(flip.nonzero().squeeze(1), self.device)
        return x.index_copy_(0, chosen, x.index_select(0, chosen).flip(3))

    def _resize(self, x: Tensor, flip: Tensor) -> Tensor:
        """Resize the shorter side to S, then keep the centre: two matrices for all rows."""
        short = min(self.height, self.width)
        rows, columns = (
            _fixed_matrix(side, int(self.size * side / short), self.size, self.device)
            for side in (self.height, self.width)
        )
        mirror = move(flip, self.device)[:, None, None]
        columns = torch.where(mirror, columns.flip(1), columns)
        return ops.apply_separable(x, rows.expand(len(x), -1, -1), columns)


def _of_both(made: Sequence[Tensor]) -> list[Tensor]:
    """Of the vertical and of the horizontal axis, where those of square images are one."""
    return list(made) if len(made) == 2 else list(made[0].chunk(2))


@lru_cache(maxsize=16)
def _fixed_matrix(length: int, resized: int, size: int, device: torch.device) -> Tensor:
    """Resize ``length`` to ``resized`` pixels, keep the ``size`` central: Float[1 size length]."""
    whole = torch.full((1,), float(length), device=device)
    zero = torch.zeros_like(whole)
    taps = ops.resample_taps(length, resized)
    pixel, weight = ops.resample_weights(zero, whole, zero, length, resized, taps)
    offset = round((resized - size) / 2.0)
    return ops.dense_matrix(pixel, weight, length)[:, offset : offset + size]


@torch.library.custom_op("ltplugins::crop_matrices", mutates_args=(), device_types="cuda")
def _crop_matrices(axes: Tensor, in_size: int, out_size: int) -> Tensor:
    """See ``crop_kernel.py``; an operator of its own, so that torch knows its shape."""
    with building():
        from ltplugins.data.augment.batch.crop_kernel import crop_matrices

        return crop_matrices(axes, in_size, out_size)


@_crop_matrices.register_fake
def _(axes: Tensor, in_size: int, out_size: int) -> Tensor:
    return axes.new_empty(axes.shape[1], out_size, in_size)
