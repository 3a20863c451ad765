# SPDX-License-Identifier: MIT
"""Sinkhorn's kernels for GPUs, in Triton's interpreter: the same promise, the same oracle."""

import sys
from unittest import mock

import pytest
import torch

from ltplugins.core import kernels
from tests.kit.fake_cuda import fake_cuda
from tests.kit.gpu import DEVICE, nothing_waits, on_a_gpu
from tests.kit.triton import interpret
from tests.losses.terms.test_sinkhorn import logits_of, oracle, priors

PROGRAM = """
import itertools, torch
from ltplugins.losses.terms import sinkhorn as form
from ltplugins.losses.terms import sinkhorn_fused, sinkhorn_kernel
from tests.losses.terms.test_sinkhorn import (
    SKEWED, grid, half_as_long, logits_of, oracle, ours, priors, worst
)

calls = []
def potentials(*args):
    calls.append(args)
    return kernel.column_potentials(*args)

torch.library.impl("ltplugins::sinkhorn_potentials", "cpu")(potentials)
form.works_on_device = lambda logits: True
g = torch.Generator().manual_seed(0)
longer = logits_of("spread", 24, 6, g), torch.rand(6, generator=g) + 0.1, 0.1, 300
few = [*itertools.islice(grid(), 4), (*SKEWED, 0.01, 12), longer]
# Several blocks of images, chunks of directions; as after training, and with tiny priors.
large = logits_of("crowded", 150, 40, g)
_, sizes, _, _ = priors(large, g)
many = [*few, *itertools.islice(grid(), 9, None, 16), (large, sizes, 0.01, 40)]
counted = torch.rand(24, generator=g) < 0.7
pair = torch.stack([longer[0], logits_of("spread", 24, 6, g)])
prior = longer[1].clone()
prior[2] = 0
alone = torch.stack([oracle(logits[counted], prior, 0.1, 9) for logits in pair])

for kernel, problems in (sinkhorn_kernel, few), (sinkhorn_fused, many):
    calls.clear()
    print(worst(ours, problems), len(calls) - len(problems))
    print(worst(half_as_long, [next(itertools.islice(grid(), 25, None))]))
    # Two problems at once, of some of the rows, and one direction that takes nothing.
    q = form.sinkhorn(pair, prior, epsilon=0.1, num_iters=9, counted=counted)
    print(float((q[:, counted] - alone).abs().max()), float(q[..., 2].max()))
    none = form.sinkhorn(pair, prior, num_iters=3, counted=torch.zeros(24, dtype=torch.bool))
    nan = form.sinkhorn(torch.full((4, 6), torch.nan), prior)
    early, late = (form.sinkhorn(pair[0], sizes[:6], tolerance=bar) for bar in (0.1, None))
    error, moved = (early.mean(dim=0) - late.mean(dim=0)).abs().sum(), (early - late).abs().max()
    ended = moved > 1e-3 or kernel is sinkhorn_kernel  # whose longer pairs go on to the end
    print(bool(none.isfinite().all() & nan.isnan().any() & (error < 0.1)) and bool(ended))
"""


def test_the_kernels_keep_the_promise():
    found = interpret(PROGRAM).split()
    assert len(found) == 12
    for error, missed, of_half, of_pair, unused, fine in (found[:6], found[6:]):
        assert float(error) < 6e-5
        assert int(missed) == 0
        assert float(of_half) > 0.01
        assert float(of_pair) < 6e-5
        assert (float(unused), fine) == (0.0, "True")


def test_a_kernel_that_fails_is_replaced_by_the_next_and_it_is_said_once(monkeypatch, caplog):
    from ltplugins.losses.terms import sinkhorn_device

    def broken(*args):
        tried.append(args)
        raise RuntimeError("no compiler")

    tried: list = []
    fused, general = mock.Mock(column_potentials=broken), mock.Mock()
    general.column_potentials = lambda scores, *rest: scores.new_zeros(1, 3)
    monkeypatch.setitem(sys.modules, "ltplugins.losses.terms.sinkhorn_fused", fused)
    monkeypatch.setitem(sys.modules, "ltplugins.losses.terms.sinkhorn_kernel", general)
    monkeypatch.setattr(kernels, "_refused", set())
    given = torch.zeros(1, 4, 3), torch.ones(3), torch.ones(4), 300, 4e-5, 0.0, 40
    for _ in range(2):
        assert sinkhorn_device._potentials._init_fn(*given).shape == (1, 3)
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the GPU kernel of Sinkhorn for small batches does not run here, a slower form does: "
        "no compiler"
    ]
    general.column_potentials = broken
    with pytest.raises(kernels.NoKernel, match="RuntimeError: no compiler"):
        sinkhorn_device._potentials._init_fn(*given)


def test_without_the_kernel_the_gpu_is_waited_for_and_it_is_said_once(monkeypatch, caplog):
    from ltplugins.losses.terms import sinkhorn

    def broken(*args, **kwargs):
        tried.append(args)
        raise kernels.NoKernel("no compiler")

    tried: list = []
    monkeypatch.setattr(kernels, "_refused", set())
    monkeypatch.setattr(sinkhorn, "works_on_device", lambda t: not kernels._refused)
    monkeypatch.setattr(sinkhorn, "assignments", broken)
    logits = torch.eye(3)
    for _ in range(2):
        found = sinkhorn.sinkhorn(logits)
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the GPU kernel of Sinkhorn does not run here, a slower form does: no compiler"
    ]
    monkeypatch.setattr(sinkhorn, "works_on_device", lambda t: False)
    assert torch.equal(found, sinkhorn.sinkhorn(logits))


def test_which_logits_the_kernel_takes():
    from ltplugins.losses.terms.sinkhorn_device import works_on_device

    pytest.importorskip("triton")
    assert not works_on_device(torch.zeros(2, 2))
    with fake_cuda():
        assert works_on_device(torch.zeros(2, 2, device="cuda"))
        assert not works_on_device(torch.zeros(2, 5000, device="cuda"))


@on_a_gpu
@pytest.mark.parametrize(("batch", "directions"), [(512, 100), (40, 10)])
def test_on_a_card_it_keeps_the_promise_and_waits_for_nothing(batch, directions, monkeypatch):
    from ltplugins.losses.terms import sinkhorn

    monkeypatch.setattr(kernels, "_refused", set())
    g = torch.Generator().manual_seed(0)
    for kind in ("spread", "crowded", "apart"):
        views = torch.stack([logits_of(kind, batch, directions, g) for _ in range(2)])
        for prior in priors(views[0], g):
            for epsilon in (0.01, 0.05, 0.5):
                given = views.to(DEVICE), prior.to(DEVICE)
                sinkhorn.sinkhorn(*given, epsilon=epsilon)  # compiles
                with nothing_waits():
                    found = sinkhorn.sinkhorn(*given, epsilon=epsilon)
                expected = torch.stack(
                    [oracle(t.to(DEVICE), given[1], epsilon, 300) for t in views]
                )
                assert (found.double() - expected).abs().max() < 6e-5, (kind, epsilon)
    assert not kernels._refused
