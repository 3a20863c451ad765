# SPDX-License-Identifier: MIT
"""The precision that losses are worked in, whatever the network's is."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x``, widened to float32 where it is half precision; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
