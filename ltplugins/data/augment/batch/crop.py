# SPDX-License-Identifier: MIT
"""Crop, resize and flip of a batch: small weights for all rows at once, matrices piece by piece.

Legend: R rows, H, W height and width of the images, S crop size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ltplugins.core.transfer import move
from ltplugins.data.augment.batch import ops
from ltplugins.data.augment.params import CropParams, ViewParams
from ltplugins.data.augment.schema import AugmentationBlock


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
        if self.crop is not None:
            self._weights = self._crop_weights(self.crop, params.flip, order)

    def apply(self, x: Tensor, start: int) -> Tensor:
        """Crop, resize and flip ``x`` Float[B C H W], rows start to start + B: Float[B C S S]."""
        piece = slice(start, start + len(x))
        if self.crop is not None:
            rows, columns = (
                ops.dense_matrix(pixel[piece], weight[piece], side)
                for (pixel, weight), side in zip(
                    self._weights, (self.height, self.width), strict=True
                )
            )
            return ops.apply_separable(x, rows, columns)
        if self.height == self.width == self.size:
            return self._mirror(x, self.flip[piece]) if self.any_flip else x
        return self._resize(x, self.flip[piece])

    def _crop_weights(
        self, crop: CropParams, flip: Tensor, order: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """Find the pixels and weights of the vertical and the horizontal axis, each [R S taps].

        In one copy to the device and, of square images, in one go: there launches take the time.
        """
        upright = torch.zeros_like(crop.top)
        boxes = [crop.top, crop.left, crop.height, crop.width, upright, flip.float()]
        axes = move(torch.stack(boxes)[:, order], self.device).view(3, 2, -1)
        if self.height == self.width:
            pixel, weight = self._weigh(axes.flatten(1), self.height)
            return list(zip(pixel.chunk(2), weight.chunk(2), strict=True))
        return [self._weigh(axes[:, 0], self.height), self._weigh(axes[:, 1], self.width)]

    def _weigh(self, axis: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Of Float[3 rows]: start, length and flip."""
        start, length, flip = axis
        taps = ops.resample_taps(side, self.size)
        return ops.resample_weights(start, length, flip, side, self.size, taps)

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


def _fixed_matrix(length: int, resized: int, size: int, device: torch.device) -> Tensor:
    """Resize ``length`` to ``resized`` pixels, keep the ``size`` central: Float[1 size length]."""
    whole = torch.full((1,), float(length), device=device)
    zero = torch.zeros_like(whole)
    taps = ops.resample_taps(length, resized)
    pixel, weight = ops.resample_weights(zero, whole, zero, length, resized, taps)
    offset = round((resized - size) / 2.0)
    return ops.dense_matrix(pixel, weight, length)[:, offset : offset + size]
