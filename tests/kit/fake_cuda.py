# SPDX-License-Identifier: MIT
"""A GPU that is not there: what runs on it has shapes, types and a device, and no values.

CPU tensors are real, those on ``cuda`` are torch's fake ones. Whatever a training step would wait
for the device for fails: a value that is asked for (``.item()``, ``bool()``, a mask whose ones are
counted), and a copy to or from the device that is not of pinned memory and ``non_blocking``. A
tensor that was forgotten on the CPU fails as it would on a GPU.

Backward passes do not run here: autograd asks the driver.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if not hasattr(fake_tensor, "FakeTensorDeviceMismatchError"):
    pytest.skip("fake tensors of torch 2.6 take CPU and GPU for one", allow_module_level=True)
# What the fake device raises for a tensor that is elsewhere, and for a wait.
OTHER_DEVICE: Any = fake_tensor.FakeTensorDeviceMismatchError
WAITS = (DataDependentOutputException, DynamicOutputShapeException)


_INDEXING = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


# Memory that is taken without being filled, and views that torch does not call by that name.
_TOUCHES_NOTHING = re.compile(r"empty|_unsafe_view")


class WaitsForDevice(RuntimeError):
    """A copy between host and device that the host waits for."""


class FakeCuda(TorchDispatchMode):
    """Inside, operations that touch ``cuda`` are faked; the others run as they are.

    Attributes:
        strict: refuse copies that wait; off while things are set up, once a run.
        launches: names of the operators that start a kernel or a copy, as they come: not views and
            not memory that is taken without being filled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strict = True
        self.launches: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        from_cuda = any(isinstance(leaf, FakeTensor) for leaf in leaves)
        device = kwargs.get("device")
        to_cuda = device is not None and torch.device(device).type == "cuda"
        if not (from_cuda or to_cuda):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        self._refuse_waits(func, args, kwargs)
        name = func.__name__
        if not (func.is_view or func.namespace == "prim" or _TOUCHES_NOTHING.search(name)):
            self.launches.append(name)
        return func(*args, **kwargs)

    def _refuse_waits(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if not self.strict:
            return
        if func in _INDEXING and any(i is not None and i.device.type == "cpu" for i in args[1]):
            raise WaitsForDevice("an index on the CPU is copied to the device, and waited for.")
        if func is torch.ops.aten._to_copy.default:
            target = torch.device(kwargs.get("device") or args[0].device)
            pair, waits = (args[0], target), not kwargs.get("non_blocking", False)
        elif func is torch.ops.aten.copy_.default:
            pair, waits = (args[1], args[0].device), not (len(args) > 2 and args[2])
        else:
            return
        source, target = pair
        if source.device.type == target.type:
            return
        if waits or target.type == "cpu" or not getattr(source, "in_pinned_memory", False):
            raise WaitsForDevice(
                f"{tuple(source.shape)} from {source.device} to {target} by a copy that is waited "
                f"for. Make it on the device, or copy it from pinned memory, non_blocking."
            )


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """Run a block with the fake device; pinned memory is marked instead of asked of a driver."""

    def pin(tensor: Tensor, *_: Any) -> Tensor:
        copy = tensor.clone()
        copy.in_pinned_memory = True  # type: ignore[attr-defined]
        return copy

    # The one under the other: torch asks for no driver as long as there is a fake mode.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with mock.patch.object(Tensor, "pin_memory", pin), fake, FakeCuda() as mode:
        yield mode


def to_cuda(module: nn.Module) -> None:
    """What ``module.cuda()`` does to parameters and buffers; other tensors stay where they are."""
    made: dict[int, Tensor] = {}

    def moved(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = torch.empty_like(tensor, device="cuda")
            if isinstance(tensor, nn.Parameter):
                made[id(tensor)] = nn.Parameter(made[id(tensor)], tensor.requires_grad)
        return made[id(tensor)]

    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = moved(tensor)  # type: ignore[assignment]
