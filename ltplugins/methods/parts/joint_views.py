# SPDX-License-Identifier: MIT
"""The large views of a step in one forward pass: one batch for every BatchNorm.

Legend: V views, N batch of this rank.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Forward = Callable[[Tensor, Tensor], dict[str, Any]]


class JointForward:
    """Answers a step's V calls for one view each out of a single forward pass of all.

    Args:
        views: V tensors (N, 3, H, W), in the order in which the step asks for them.
    """

    def __init__(self, views: Sequence[Tensor]) -> None:
        self._views = list(views)
        self._outs: list[dict[str, Any]] | None = None

    def next(self, forward: Forward, targets: Tensor) -> dict[str, Any]:
        """What ``forward`` says of the next view.

        Rows are those of the view; a mean, such as a loss, is that over all views, whose mean over
        views is the same.

        Args:
            forward: of (V N, 3, H, W) images and Int[V N] labels.
            targets: Int[N], the same for every view.
        """
        if self._outs is None:
            joint = forward(torch.cat(self._views), targets.repeat(len(self._views)))
            self._outs = [
                {
                    key: _rows(value, view, len(self._views), len(targets))
                    for key, value in joint.items()
                }
                for view in range(len(self._views))
            ]
        return self._outs.pop(0)


def _rows(value: Any, view: int, num_views: int, size: int) -> Any:
    if isinstance(value, Tensor) and value.dim() > 0 and len(value) == num_views * size:
        return value[view * size : (view + 1) * size]
    return value
