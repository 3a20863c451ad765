# SPDX-License-Identifier: MIT
"""Operators on a batch against torchvision and PIL with the same parameters."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ltplugins.data.augment.batch import ops

LEVEL = 1.0 / 255.0


def noise(count=6, height=20, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def unit(images):
    return images.float() / 255.0


def columns(*values):
    return torch.tensor(values, dtype=torch.float32)


def test_both_forms_of_the_second_axis_agree():
    rows = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    images = torch.randn(3, 2, 7, 4, generator=torch.Generator().manual_seed(1))
    expected = torch.einsum("bsh,bchw->bcsw", rows.double(), images.double()).float()
    for form in (ops.down_by_channel, ops.down_at_once):
        torch.testing.assert_close(form(rows, images), expected)


BOXES = [
    (0, 0, 20, 24),
    (3, 2, 11, 9),
    (10, 5, 7, 19),
    (1, 0, 18, 24),
    (19, 23, 1, 1),
    (0, 4, 20, 5),
]


def matrix(start, length, flip, side, size):
    taps = ops.resample_taps(side, size)
    return ops.dense_matrix(*ops.resample_weights(start, length, flip, side, size, taps), side)


def crop(images, size, flips):
    top, left, height, width = (columns(*v) for v in zip(*BOXES, strict=True))
    rows = matrix(top, height, torch.zeros(6), 20, size)
    cols = matrix(left, width, columns(*flips), 24, size)
    assert torch.allclose(rows.sum(2), torch.ones(6, size), atol=1e-5)
    return ops.apply_separable(images, rows, cols)


@pytest.mark.parametrize("size", [5, 16, 40])
def test_crop_is_torchvisions(size):
    images = noise()
    flips = [0, 1, 0, 1, 0, 1]
    found = crop(unit(images), size, flips)
    # Low contrast does not leave [0, 1] between the axes: then torchvision in float is exact.
    soft = 0.3 + 0.4 * unit(images)
    exact = crop(soft, size, flips)
    for i, box in enumerate(BOXES):
        keywords = {"interpolation": InterpolationMode.BICUBIC, "antialias": True}
        in_bytes = F.resized_crop(images[i], *box, [size, size], **keywords)
        in_floats = F.resized_crop(soft[i], *box, [size, size], **keywords)
        if flips[i]:
            in_bytes, in_floats = in_bytes.flip(-1), in_floats.flip(-1)
        assert (found[i] - unit(in_bytes)).abs().max() <= 1.6 * LEVEL  # rounded twice
        assert (exact[i] - in_floats).abs().max() < 2e-6


def test_crop_test_rejects_other_kernels():
    images = 0.3 + 0.4 * unit(noise())
    box = BOXES[1]
    found = crop(images, 16, [0] * 6)[1]
    for mode in (InterpolationMode.BILINEAR, InterpolationMode.NEAREST):
        other = F.resized_crop(images[1], *box, [16, 16], interpolation=mode, antialias=True)
        assert (found - other).abs().max() > 5 * LEVEL
    plain = F.resized_crop(
        images[0], *BOXES[0], [5, 5], interpolation=InterpolationMode.BICUBIC, antialias=False
    )
    assert (crop(images, 5, [0] * 6)[0] - plain).abs().max() > 5 * LEVEL


def test_crop_is_pils():
    # Low contrast: which axis PIL cuts at 0 and 255 first depends on its version and the box.
    images = 80 + noise() // 3
    found = crop(unit(images), 16, [0] * 6)
    for i, (top, left, height, width) in enumerate(BOXES):
        pil = Image.fromarray(images[i].permute(1, 2, 0).numpy())
        pil = pil.crop((left, top, left + width, top + height)).resize((16, 16), Image.BICUBIC)
        expected = torch.from_numpy(np.array(pil)).permute(2, 0, 1) / 255
        assert (found[i] - expected).abs().max() <= 1.6 * LEVEL


BRIGHTNESS = columns(0.2, 0.7, 1.0, 1.3, 1.8, 0.0)


def test_brightness_contrast_saturation():
    images = unit(noise())
    one, zero = torch.ones(6), torch.zeros(6)
    cases = [
        (F.adjust_brightness, (BRIGHTNESS, zero, zero)),
        (F.adjust_contrast, (BRIGHTNESS, zero, 1 - BRIGHTNESS)),
        (F.adjust_saturation, (BRIGHTNESS, 1 - BRIGHTNESS, zero)),
    ]
    for operator, coefficients in cases:
        found = ops.adjust_affine_(images.clone(), *coefficients)
        for i, factor in enumerate(BRIGHTNESS.tolist()):
            # torchvision's luma has 0.2989 where PIL's has 0.299: 1e-4 of the red channel.
            assert (found[i] - operator(images[i], factor)).abs().max() < 2e-4, operator
    assert torch.equal(ops.adjust_affine_(images.clone(), one, zero, zero), images)


def test_hue():
    images = unit(noise(8))
    images[6] = images[6, :1]  # grey: no hue
    images[7, 0] = images[7, 1]  # ties between channels
    shift = columns(0.0, 0.05, 0.2, -0.2, 0.5, -0.5, 0.3, 0.1)
    found = ops.shift_hue(images, shift)
    for i, s in enumerate(shift.tolist()):
        assert (found[i] - F.adjust_hue(images[i], s)).abs().max() < 5e-6
    assert torch.allclose(found[6], images[6])
    assert torch.equal(ops.shift_hue(images, shift, out=images), found)  # in place
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    green = ops.shift_hue(red, columns(1 / 3)).flatten()
    assert green.tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)


def test_hue_keeps_value_and_saturation():
    images = unit(noise(3))
    turned = ops.shift_hue(images, columns(0.1, 0.37, -0.45))
    assert torch.allclose(turned.amax(1), images.amax(1), atol=1e-6)
    assert torch.allclose(turned.amin(1), images.amin(1), atol=1e-6)


def test_luma():
    images = noise()
    expected = unit(F.rgb_to_grayscale(images))
    assert (ops.luma(unit(images)) - expected).abs().max() <= 1.1 * LEVEL
    assert ops.luma(images[:, :1]).shape == (6, 1, 20, 24)


def test_solarize():
    images = noise()
    expected = unit(F.solarize(images, 128))
    assert torch.allclose(ops.solarize(unit(images)), expected, atol=1e-6)
    edge = columns(127, 128).view(1, 2, 1, 1) / 255
    assert (ops.solarize(edge).flatten() * 255).tolist() == pytest.approx([127, 127])


def test_equalize():
    images = noise()
    images[1] = images[1] // 8  # few levels
    images[2] = 7  # one level: stays
    images[3, :, :10] = 0
    expected = torch.stack([unit(F.equalize(image)) for image in images])
    assert torch.allclose(ops.equalize(unit(images)), expected, atol=1e-6)


SIGMA = columns(0.1, 0.4, 0.8, 1.2, 1.6, 2.0)


def blur(images):
    rows, cols = ops.blur_matrix(SIGMA, 20), ops.blur_matrix(SIGMA, 24)
    return ops.apply_separable(images, rows, cols)


def test_blur_is_pils():
    images = noise()
    found = blur(unit(images))
    for i, sigma in enumerate(SIGMA.tolist()):
        pil = Image.fromarray(images[i].permute(1, 2, 0).numpy())
        expected = np.array(pil.filter(ImageFilter.GaussianBlur(sigma)))
        expected = torch.from_numpy(expected).permute(2, 0, 1) / 255
        error = (found[i] - expected).abs()
        assert error.max() <= 3.5 * LEVEL  # PIL rounds six times
        assert error.mean() <= 1.1 * LEVEL


def test_blur_is_near_the_gaussian():
    ramp = torch.linspace(0, 1, 24).expand(3, 20, 24)
    soft = torch.stack([ramp, ramp.flip(-1), *([0.5 + 0.2 * torch.sin(9 * ramp)] * 4)])
    found = blur(soft)
    for i, sigma in enumerate(SIGMA.tolist()):
        expected = F.gaussian_blur(soft[i], [17, 17], [sigma, sigma])
        inner = (found[i] - expected)[:, 8:-8, 8:-8].abs().max()  # the borders differ by design
        assert inner < 1.5 * LEVEL
    wrong = F.gaussian_blur(soft[5], [17, 17], [1.0, 1.0])
    assert (found[5] - wrong)[:, 8:-8, 8:-8].abs().max() > 1.5 * LEVEL


def test_blur_kernel_has_the_variance_of_its_sigma():
    kernel = ops.blur_matrix(SIGMA, 41)[:, 20]
    place = torch.arange(41.0) - 20
    assert torch.allclose(kernel.sum(1), torch.ones(6), atol=1e-5)
    assert torch.allclose((kernel * place**2).sum(1), SIGMA**2, atol=1e-4)
