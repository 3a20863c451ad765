# SPDX-License-Identifier: MIT
"""Our own kernels for GPUs, in Triton: used where they run, done without where they do not."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from torch import Tensor

log = logging.getLogger(__name__)

_refused: set[str] = set()


class NoKernel(RuntimeError):
    """A kernel cannot be built or started on this machine."""


@contextmanager
def building() -> Iterator[None]:
    """Around a kernel's import and its launch: what fails there is :class:`NoKernel`."""
    try:
        yield
    except Exception as error:  # a compiler's: no CUDA toolchain, a card that is too old, ...
        raise NoKernel(f"{type(error).__name__}: {error}") from error


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed; where it is not, it is said once."""
    found = find_spec("triton") is not None
    if not found:
        log.warning("Triton is not installed: steps on a GPU are slower than they could be.")
    return found


def runs_kernel(name: str, values: Tensor) -> bool:
    """Whether the kernel ``name`` is to be tried on these values: on CUDA, and not given up."""
    return values.device.type == "cuda" and name not in _refused and has_triton()


def is_given_up(name: str) -> bool:
    """Whether the kernel ``name`` has failed on this machine before."""
    return name in _refused


def give_up(name: str, error: Exception) -> None:
    """Do without the kernel from now on, and say so once."""
    _refused.add(name)
    log.warning("the GPU kernel of %s does not run here, a slower form does: %s", name, error)
