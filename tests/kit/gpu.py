# SPDX-License-Identifier: MIT
"""Views that are made on a GPU: nothing may wait for the device."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

Views = Callable[[Tensor, Any], Any]


def on_a_gpu(test: Any) -> Any:
    """Mark a test that needs a CUDA device."""
    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    return pytest.mark.gpu(missing(test))


def made_without_waiting(
    views: Views, images: Tensor, seeds: Callable[[int], Any]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each view as the GPU makes it, without a synchronisation, and as the CPU does.

    Args:
        views: makes the views of images with a seeded generator.
        seeds: gives the generators of a seed.
    """
    on_device = images.cuda()
    views(on_device, seeds(0))  # constants are made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = views(on_device, seeds(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for view, other in zip(found, views(images, seeds(1)), strict=True):
        yield view.cpu(), other
