# SPDX-License-Identifier: MIT
"""Values on their way to the device, without the host waiting for it.

A GPU works behind the host. A copy from ordinary memory, a value that is asked for (``.item()``, an
``if``) and a shape that depends on values (``x[mask]``, ``nonzero``) make the host wait until the
device has caught up, and the device idle until the host is ahead again.
"""

import torch
from torch import Tensor


def move(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small CPU tensor to ``device`` without waiting for the device."""
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)


def scalar(value: float, device: torch.device) -> Tensor:
    """A number as Float[] made on ``device``: what ``log`` is to be given.

    ``torch.tensor(value, device=device)``, which Lightning does to numbers, is a copy that waits.
    """
    return torch.full((), float(value), device=device)


def runs_behind(values: Tensor) -> bool:
    """Whether asking for one of the values, or for how many are true, would wait for a device."""
    return values.device.type != "cpu"
