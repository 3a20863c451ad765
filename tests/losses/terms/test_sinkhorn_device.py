# SPDX-License-Identifier: MIT
"""Sinkhorn's kernel for GPUs, in Triton's interpreter: the same promise and the same oracle."""

import os
import subprocess
import sys

import pytest
import torch

from tests.kit.fake_cuda import fake_cuda
from tests.kit.paths import ROOT

# A process of its own: Triton decides at import whether it interprets.
PROGRAM = """
import itertools, torch
from ltplugins.losses.terms import sinkhorn as form
from ltplugins.losses.terms.sinkhorn_kernel import column_potentials
from tests.losses.terms.test_sinkhorn import SKEWED, grid, logits_of, oracle, ours, worst

calls = []
def potentials(*args):
    calls.append(args)
    return column_potentials(*args)

torch.library.impl("ltplugins::sinkhorn_potentials", "cpu")(potentials)
form.works_on_device = lambda logits: True
g = torch.Generator().manual_seed(0)
longer = logits_of("spread", 24, 6, g), torch.rand(6, generator=g) + 0.1, 0.1, 300
problems = [*itertools.islice(grid(), 4), (*SKEWED, 0.01, 12), longer]
print(worst(ours, problems), len(calls))

# Two problems at once, of some of the rows, and one direction that takes nothing.
counted = torch.rand(24, generator=g) < 0.7
prior = longer[1].clone()
prior[2] = 0
pair = torch.stack([longer[0], logits_of("spread", 24, 6, g)])
q = form.sinkhorn(pair, prior, epsilon=0.1, num_iters=9, counted=counted)
alone = torch.stack([oracle(logits[counted], prior, 0.1, 9) for logits in pair])
print(float((q[:, counted] - alone).abs().max()), float(q[..., 2].max()))
none = form.sinkhorn(pair, prior, num_iters=3, counted=torch.zeros(24, dtype=torch.bool))
print(bool(none.isfinite().all()))
"""


def test_the_kernel_keeps_the_promise():
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    error, calls, of_pair, unused, finite = done.stdout.split()
    assert float(error) < 6e-5
    assert int(calls) == 6
    assert float(of_pair) < 6e-5
    assert (float(unused), finite) == (0.0, "True")


def test_without_the_kernel_the_gpu_is_waited_for_and_it_is_said_once(monkeypatch, caplog):
    from ltplugins.losses.terms import sinkhorn, sinkhorn_device

    def broken(*args, **kwargs):
        tried.append(args)
        raise sinkhorn_device.NoKernel("no compiler")

    tried: list = []
    monkeypatch.setattr(sinkhorn_device, "_refusals", [])
    monkeypatch.setattr(sinkhorn, "works_on_device", lambda t: not sinkhorn_device._refusals)
    monkeypatch.setattr(sinkhorn, "assignments", broken)
    logits = torch.eye(3)
    for _ in range(2):
        found = sinkhorn.sinkhorn(logits)
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "Sinkhorn waits for the GPU every ten pairs, as its kernel does not run: no compiler"
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
