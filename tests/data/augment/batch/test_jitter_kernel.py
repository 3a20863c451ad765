# SPDX-License-Identifier: MIT
"""The colour jitter's kernel for GPUs, in Triton's interpreter, against the plain form."""

import torch

from ltplugins.core import kernels
from ltplugins.data.augment.batch import jitter
from tests.kit.triton import interpret

PROGRAM = """
import torch
from ltplugins.data.augment.batch.jitter import JitterPlan
from ltplugins.data.augment.batch.jitter_kernel import jitter_
from ltplugins.data.augment.params import draw_params
from ltplugins.data.augment.schema import parse_augmentations

for channels, size, hue, saturation in ((3, 12, 0.2, 0.8), (3, 50, 0.5, 0.0), (1, 12, 0.2, 0.8)):
    strengths = {"brightness": 0.8, "contrast": 0.8, "saturation": saturation, "hue": hue}
    jitter = {"prob": 0.8, **strengths}
    block = parse_augmentations([{"color_jitter": jitter, "crop_size": size, "num_crops": 1}])[0]
    params = draw_params(block, 24, size, size, torch.Generator().manual_seed(0))
    plan = JitterPlan(block, params.jitter, channels, torch.device("cpu"))
    images = torch.rand(24, channels, size, size)
    plain, found = images.clone(), images.clone()
    plan.apply_(plain, 0)
    jitter_(
        found, plan.coefficients.contiguous(), plan.hue, plan.group, hue_active=plan.hue_active
    )
    untouched = (plain == images).flatten(1).all(dim=1)
    same = torch.equal(found[untouched], images[untouched])
    print(float((found - plain).abs().max()), int(untouched.sum()), same)
"""


def test_the_kernel_does_what_the_plain_form_does():
    lines = [line.split() for line in interpret(PROGRAM).splitlines()]
    assert len(lines) == 3
    for worst, untouched, same in lines:
        assert float(worst) < 2e-6
        assert 0 < int(untouched) < 24
        assert same == "True"


def test_a_kernel_that_does_not_run_is_given_up_and_said_once(monkeypatch, caplog):
    """The plain form does the work, on the images as they were."""
    tried = []

    def fails(self, x):
        tried.append(x.shape)
        raise kernels.NoKernel("no compiler here")

    monkeypatch.setattr(kernels, "_refused", set())
    monkeypatch.setattr(jitter, "runs_kernel", lambda name, x: name not in kernels._refused)
    monkeypatch.setattr(jitter.JitterPlan, "_apply_at_once", fails)
    plan, images = _plan()
    expected = images.clone()
    for group, low, high in plan._runs(0, len(images)):
        plan.apply_run_(expected[low:high], group, low, high)
    for _ in range(2):
        found = images.clone()
        plan.apply_(found, 0)
        assert torch.equal(found, expected)
    assert len(tried) == 1
    assert caplog.text.count("no compiler here") == 1


def _plan():
    from ltplugins.data.augment.params import draw_params
    from ltplugins.data.augment.schema import parse_augmentations

    strengths = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    given = {"color_jitter": {"prob": 0.8, **strengths}, "crop_size": 8, "num_crops": 1}
    block = parse_augmentations([given])[0]
    generator = torch.Generator().manual_seed(0)
    params = draw_params(block, 20, 8, 8, generator)
    plan = jitter.JitterPlan(block, params.jitter, 3, torch.device("cpu"))
    return plan, torch.rand(20, 3, 8, 8, generator=generator)
