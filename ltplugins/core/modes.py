# SPDX-License-Identifier: MIT
"""A module that is looked at while it trains: in eval mode for a while, then as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def looked_at(
    module: nn.Module, device: torch.device | None = None, grads: bool = False
) -> Iterator[None]:
    """Put ``module`` in eval mode; restore each submodule's mode afterwards.

    Args:
        device: where it is put meanwhile; None = it stays.
        grads: whether gradients are recorded meanwhile, whatever is so around it.
    """
    modes = {child: child.training for child in module.modules()}
    home = next((p.device for p in module.parameters()), device)
    module.eval()
    if device is not None:
        module.to(device)
    try:
        with torch.set_grad_enabled(grads):
            yield
    finally:
        if device is not None:
            module.to(home)
        for child, mode in modes.items():
            child.training = mode
