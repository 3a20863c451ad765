# SPDX-License-Identifier: MIT
"""The precision that losses are worked in, whatever the network's is."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

Work = TypeVar("Work", bound=Callable[..., Any])


def at_least_float32(x: Tensor) -> Tensor:
    """``x``, widened to float32 where it is half precision; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@contextmanager
def no_tf32() -> Iterator[None]:
    """Let a GPU convolve float32 as float32, which torch by default rounds to 10 bits of fraction.

    Features so made are those of the CPU to float32's accuracy, and not of one kind of card.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def full_precision(work: Work) -> Work:
    """Run ``work`` with autocast off and every half-precision tensor among its arguments widened.

    The first of these tensors tells the device.
    """

    @functools.wraps(work)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        known: dict[int, Any] = {}  # the same tensor given twice stays the same

        def widen(value: Any) -> Any:
            return known.setdefault(id(value), _widen(value))

        with torch.autocast(first.device.type, enabled=False):
            named = {key: widen(value) for key, value in kwargs.items()}
            return work(*(widen(value) for value in args), **named)

    return wrapper  # type: ignore[return-value]


def _widen(value: Any) -> Any:
    return at_least_float32(value) if isinstance(value, Tensor) else value
