# SPDX-License-Identifier: MIT
"""Colour jitter of a batch whose samples have their four operators in different orders.

Legend: R rows, C channels, S crop size.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ltplugins.core.kernels import NoKernel, building, give_up, runs_kernel
from ltplugins.core.transfer import move
from ltplugins.data.augment.batch import ops
from ltplugins.data.augment.params import JitterParams
from ltplugins.data.augment.schema import AugmentationBlock


class JitterPlan:
    """Colour jitter by groups: rows sorted by how many operators come before their hue shift.

    Brightness, contrast and saturation share one formula, so rows of different order go through it
    together; only the hue splits the rows, into at most four runs.
    """

    def __init__(
        self, block: AugmentationBlock, params: JitterParams, channels: int, device: torch.device
    ) -> None:
        cfg = block.color_jitter
        strength = (cfg.brightness, cfg.contrast, cfg.saturation)
        # Saturation and hue leave greyscale images as they are.
        active = [i for i in range(3) if strength[i] > 0 and not (i == 2 and channels == 1)]
        self.hue_active = cfg.hue > 0 and channels == 3
        self.steps = len(active)
        before_hue = (params.rank[:, active] < params.rank[:, 3:]).sum(1)
        if not self.hue_active:
            before_hue = torch.zeros_like(before_hue)
        # Rows without jitter come last, as group steps + 1.
        group = torch.where(params.apply, before_hue, self.steps + 1)
        if not (self.hue_active or active):
            group = torch.full_like(group, self.steps + 1)
        self.order = torch.argsort(group, stable=True)
        self.group = group[self.order].int()
        self.ends = torch.bincount(group, minlength=self.steps + 2).cumsum(0).tolist()
        self.coefficients = move(self._coefficients(params, active)[:, :, self.order], device)
        self.hue = move(params.hue[self.order], device)

    def _coefficients(self, params: JitterParams, active: list[int]) -> Tensor:
        """Find gain, to_grey, to_mean of each row's operators in their order: Float[3 steps R]."""
        factor = params.factor.T  # (3, R)
        table = torch.zeros(3, *factor.shape)
        table[0] = factor
        table[1, 2] = 1.0 - factor[2]  # saturation mixes with each pixel's grey
        table[2, 1] = 1.0 - factor[1]  # contrast mixes with the mean grey
        sequence = params.rank[:, active].argsort(1).T  # (steps, R)
        return table[:, active].gather(1, sequence.expand(3, -1, -1))

    def apply_(self, x: Tensor, start: int) -> None:
        """Jitter in place the rows of ``x``, which are rows start to start + len(x) in order."""
        if start == 0 and len(x) == len(self.order) and runs_kernel("colour jitter", x):
            try:
                self._apply_at_once(x)
                return
            except NoKernel as error:
                give_up("colour jitter", error)
        for group, low, high in self._runs(start, start + len(x)):
            self.apply_run_(x[low - start : high - start], group, low, high)

    def apply_run_(self, run: Tensor, group: int, low: int, high: int) -> None:
        """Jitter rows low to high, whose hue comes after ``group`` operators, in place."""
        for step in range(self.steps + 1):
            if step == group and self.hue_active:
                ops.shift_hue(run, self.hue[low:high], out=run)
            if step < self.steps:
                ops.adjust_affine_(run, *self.coefficients[:, step, low:high])

    def _apply_at_once(self, x: Tensor) -> None:
        group = move(self.group, x.device)
        torch.ops.ltplugins.jitter_(x, self.coefficients, self.hue, group, self.hue_active)

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Give (group, first, end) of the groups with jitter that overlap rows start to stop."""
        begin = 0
        for group, end in enumerate(self.ends[: self.steps + 1]):
            low, high = max(begin, start), min(end, stop)
            if low < high:
                yield group, low, high
            begin = end


@torch.library.custom_op("ltplugins::jitter_", mutates_args=("images",), device_types="cuda")
def _jitter_(
    images: Tensor, coefficients: Tensor, hue: Tensor, group: Tensor, hue_active: bool
) -> None:
    """See ``jitter_kernel.py``; an operator of its own, so that torch knows what it does."""
    with building():
        from ltplugins.data.augment.batch.jitter_kernel import jitter_

        jitter_(images, coefficients.contiguous(), hue, group, hue_active=hue_active)


@_jitter_.register_fake
def _(images: Tensor, *_: object) -> None:
    return None
