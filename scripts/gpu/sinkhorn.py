# SPDX-License-Identifier: MIT
"""Sinkhorn on a GPU: the time of each form of it, a launch or many, and its error.

    python scripts/gpu/sinkhorn.py

A line for each size, kind of logits and form: median of CUDA events, largest difference of a share
from 300 plain pairs in float64, time of the first call (compiling). A form that fails is said to,
and the others go on. Without a GPU only the plain form runs, so that the script itself is tried.
"""

import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from unittest import mock

import torch
import torch.nn.functional as F
from clock import CUDA, milliseconds
from torch import Tensor

from ltplugins.core.kernels import is_given_up
from ltplugins.losses.gh import gh_loss
from ltplugins.losses.terms import sinkhorn as plain
from ltplugins.losses.terms import sinkhorn_device

DEVICE = "cuda" if CUDA else "cpu"
SIZES = ((512, 100), (512, 10), (256, 100)) if CUDA else ((64, 10),)
LIMIT = 50  # seconds, after which no further size is begun
Views = tuple[Tensor, Tensor, float]


def oracle(views: Tensor, prior: Tensor, epsilon: float) -> Tensor:
    """300 pairs by log-sum-exp in float64: Float64[2 B K]."""
    scores, log_prior = views.double() / epsilon, (prior.double() / prior.double().sum()).log()
    rows = torch.zeros_like(scores[..., :1])
    for _ in range(300):
        cols = log_prior - torch.logsumexp(scores + rows, dim=1, keepdim=True)
        rows = -torch.logsumexp(scores + cols, dim=2, keepdim=True)
    return torch.softmax(scores + cols, dim=2)


def problems(batch: int, directions: int) -> Iterator[tuple[str, Tensor, Tensor, float]]:
    """As of a new network; as after some epochs of GH; hard, of tiny priors and a small epsilon."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(2, batch, directions, generator=g)
    shares = 100.0 ** -torch.linspace(0, 1, directions)
    nearest = F.one_hot(torch.multinomial(shares, batch, True, generator=g), directions)
    trained = F.normalize(0.6 * nearest + 0.1 * noise, dim=2)
    sizes = 10.0 ** (-7 * torch.rand(directions, generator=g))
    for name, views, prior, epsilon in (
        ("new", F.normalize(noise, dim=2), torch.softmax(noise[0, 0], dim=0), 0.05),
        ("trained", trained, shares, 0.05),
        ("hard", trained, sizes, 0.01),
    ):
        yield name, views.to(DEVICE), prior.to(DEVICE), epsilon


def potentials_of(module: str) -> Callable[..., Tensor]:
    """How a kernel moves the columns, from its module; imported when it is called."""
    return lambda *given: import_module(f"ltplugins.losses.terms.{module}").column_potentials(
        *given
    )


def kernel_form(module: str, views: Tensor, prior: Tensor, epsilon: float) -> Tensor:
    """``sinkhorn`` with the kernel of this module, whatever the size."""
    operator = mock.Mock(side_effect=potentials_of(module))
    with mock.patch.object(torch.ops.ltplugins, "sinkhorn_potentials", operator):
        return plain._unwatched(views, prior, epsilon, 300, None, None)


def plain_form(views: Tensor, prior: Tensor, epsilon: float) -> Tensor:
    return torch.stack([plain._watched(t, prior, epsilon, 300, None) for t in views])


def measure(form: Callable[[], Tensor], expected: Tensor) -> str:
    """Time, error and first call of a form; or why it has none."""
    try:
        start = time.perf_counter()
        error = float((form().double() - expected).abs().max())  # waits
        first = time.perf_counter() - start
        return f"{milliseconds(form):8.3f} ms   error {error:.1e}   first call {first:.1f} s"
    except Exception as failure:
        return f"fails: {type(failure).__name__}: {str(failure)[:300]}"


def term(views: Tensor, prior: Tensor) -> Tensor:
    """The whole GH term, forward and backward, as a step takes it: Float[2 B K]."""
    leaves = views.clone().requires_grad_()
    gh_loss(leaves[0], leaves[1], prior).backward()
    return torch.zeros_like(views) if leaves.grad is None else leaves.grad * 0


def main() -> None:
    begin = time.perf_counter()
    print(torch.cuda.get_device_name() if CUDA else "no GPU: the plain form alone, on the CPU")
    kernels = ("sinkhorn_fused", "sinkhorn_kernel") if CUDA else ()
    for batch, directions in SIZES:
        if time.perf_counter() - begin > LIMIT:
            print(f"{batch} x {directions}: left out, {LIMIT} s are over")
            continue
        for name, views, prior, epsilon in problems(batch, directions):
            expected = oracle(views, prior, epsilon)
            forms = {"plain": lambda v=views, p=prior, e=epsilon: plain_form(v, p, e)} | {
                kernel: lambda k=kernel, v=views, p=prior, e=epsilon: kernel_form(k, v, p, e)
                for kernel in kernels
            }
            for form, work in forms.items():
                print(
                    f"{batch} x {directions}, {name:8}{form:16}{measure(work, expected)}",
                    flush=True,
                )
            if name == "trained":
                line = measure(lambda v=views, p=prior: term(v, p), torch.zeros_like(expected))
                print(f"{batch} x {directions}, {name:8}{'whole GH term':16}{line}", flush=True)
    names = (sinkhorn_device.KERNEL, sinkhorn_device.SMALL_KERNEL)
    print("kernels that were given up:", [name for name in names if is_given_up(name)] or "none")


if __name__ == "__main__":
    sys.exit(main())
