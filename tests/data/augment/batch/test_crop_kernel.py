# SPDX-License-Identifier: MIT
"""The crops' kernel for GPUs, in Triton's interpreter, against the plain form."""

import pytest
import torch

from ltplugins.core import kernels
from ltplugins.data.augment.batch import crop
from ltplugins.data.sources.records import RECORDS
from tests.kit.data import batched_views
from tests.kit.triton import interpret
from tests.kit.views import VIEW

PROGRAM = """
import torch
from ltplugins.data.augment.batch import ops
from ltplugins.data.augment.batch.crop_kernel import crop_matrices

generator = torch.Generator().manual_seed(0)
for side, size in ((28, 28), (50, 24), (24, 40), (300, 20)):
    length = torch.randint(1, side + 1, (20,), generator=generator).float()
    start = (torch.rand(20, generator=generator) * (side - length + 1)).floor()
    flip = (torch.rand(20, generator=generator) < 0.5).float()
    taps = ops.resample_taps(side, size)
    plain = ops.dense_matrix(*ops.resample_weights(start, length, flip, side, size, taps), side)
    found = crop_matrices(torch.stack([start, length, flip]), side, size)
    turned = crop_matrices(torch.stack([start, length, 1 - flip]), side, size)
    print(float((found - plain).abs().max()), float((turned - plain).abs().max()))
"""


def test_the_kernel_does_what_the_plain_form_does():
    """Whole and narrow crops, shrunk and enlarged; a flip the other way round is found out."""
    lines = [[float(word) for word in line.split()] for line in interpret(PROGRAM).splitlines()]
    assert len(lines) == 4
    assert all(worst < 1e-6 and turned > 0.1 for worst, turned in lines), lines


@pytest.mark.parametrize("width", [20, 26])
def test_matrices_made_at_once_are_used_as_they_are(width, monkeypatch):
    """Square or not, the axes are not exchanged; the kernel is played by the plain form."""
    images = noise(20, width)
    (expected,) = views(images)
    asked = []

    def plain(self, axes):
        found = []
        for side, rows in axes:
            asked.append((side, rows.shape[1]))
            weights = self._weigh(side, rows)
            found += crop.ops.dense_matrix(*weights, side).chunk(3 - len(axes))
        return found

    monkeypatch.setattr(crop.CropPlan, "_at_once", plain)
    (found,) = views(images)
    assert torch.equal(found, expected)
    assert asked == ([(20, 12)] if width == 20 else [(20, 6), (26, 6)])


def test_a_kernel_that_does_not_run_is_given_up_and_said_once(monkeypatch, caplog):
    def fails(*_):
        raise kernels.NoKernel("no compiler here")

    monkeypatch.setattr(kernels, "_refused", set())
    images = noise(20, 20)
    (expected,) = views(images)
    monkeypatch.setattr(crop, "runs_kernel", lambda name, x: name not in kernels._refused)
    monkeypatch.setattr(torch.ops.ltplugins, "crop_matrices", fails)
    for _ in range(2):
        assert torch.equal(views(images)[0], expected)
    assert caplog.text.count("no compiler here") == 1


def noise(height, width):
    return torch.randint(256, (6, 3, height, width), dtype=torch.uint8, generator=seeded())


def views(images):
    return batched_views([{**VIEW, "num_crops": 1}], RECORDS["cifar10"])(images, seeded())


def seeded():
    return torch.Generator().manual_seed(0)
