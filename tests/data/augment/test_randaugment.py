# SPDX-License-Identifier: MIT
"""RandAugment: the batch's operators against PIL and torchvision, draws, and the two engines."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandAugment as TorchvisionRandAugment
from torchvision.transforms import functional as F

from ltplugins.core.errors import UserError
from ltplugins.data.augment.batch import enhance
from ltplugins.data.augment.batch.randaugment import (
    RandAugmentParams,
    RandAugmentPlan,
    draw_randaugment,
    operator_arguments,
)
from ltplugins.data.augment.pil import ViewTransform, view_transform
from ltplugins.data.augment.randaugment import OPERATIONS, SPACES, Range, apply_pil
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.sources.records import RECORDS
from tests.kit.data import batched_views
from tests.kit.gpu import made_without_waiting, on_a_gpu

RECORD = RECORDS["cifar10"]
PLAIN = {"crop_size": 24, "num_crops": 1, "mean": [0.0] * 3, "std": [1.0] * 3}
LEVEL = 1.0 / 255.0
GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def noise(count=4, size=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    out = torch.randint(30, 220, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    out[1] = out[1] // 8 + 60  # few levels
    return out


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0


def on_batch(images, name, value, place=(0.5, 0.5)):
    """One operation with one value on uint8 images, the batched way."""
    count = len(images)
    params = RandAugmentParams(
        torch.full((1, count), OPERATIONS.index(name)),
        torch.full((1, count), value),
        torch.tensor(place).view(2, 1, 1).expand(2, 1, count).contiguous(),
    )
    x = images.float() / 255.0
    RandAugmentPlan(params, images.shape[-1]).apply_(x, torch.arange(count))
    return x


def agrees(found, expected, name):
    """PIL rounds to 8 bits inside an operation; a pixel between two may come from either."""
    error = (found - expected).abs()
    if name in GEOMETRY:
        return (error > 1e-6).float().mean() < 0.003
    twice = name in ("color", "contrast", "sharpness")
    return error.max() <= (1.6 if twice else 1.01) * LEVEL


# Not 4: a shear of 0.04 puts a whole row of 24 pixels on the border between two.
@pytest.mark.parametrize("magnitude", [0.0, 3.7, 13.7, 29.0])
@pytest.mark.parametrize("ops", SPACES)
def test_every_operation_is_pils(ops, magnitude):
    images = noise()
    for name, space in SPACES[ops].items():
        for sign in (1, -1) if space.signed else (1,):
            value = sign * space.value(magnitude)
            found = on_batch(images, name, value, (0.7, 0.1))
            expected = torch.stack(
                [tensor(apply_pil(pil(i), name, value, 0.7, 0.1)) for i in images]
            )
            assert agrees(found, expected, name), (name, value)


@pytest.mark.parametrize("name", [*GEOMETRY, "sharpness", "posterize", "solarize", "autocontrast"])
def test_the_comparison_rejects_other_operators(name):
    """Half the value, the other direction, the other axis, another centre or kernel."""
    value = {"posterize": 5.0, "solarize": 120.0, "rotate": 20.0}.get(name, 0.4)
    found = on_batch(noise(), name, value)[0]
    image = pil(noise()[0])
    wrong = {
        "shear_x": [F.affine(image, 0, [0, 0], 1, [math.degrees(math.atan(value)), 0.0])],
        "rotate": [F.rotate(image, value, center=[0, 0]), F.rotate(image, value / 2)],
        "sharpness": [F.adjust_sharpness(image, 1 - value), F.gaussian_blur(image, 3)],
        "posterize": [F.posterize(image, 4), F.posterize(image, 6)],
        "solarize": [F.solarize(image, 119), F.solarize(image, 121)],
        "autocontrast": [F.equalize(image), image],
        "translate_x": [apply_pil(image, "translate_x", -value)],
        "translate_y": [apply_pil(image, "translate_x", value)],
        "shear_y": [apply_pil(image, "shear_x", value), apply_pil(image, "shear_y", -value)],
    }[name]
    assert agrees(found, tensor(apply_pil(image, name, value)), name)
    assert not any(agrees(found, tensor(w), name) for w in wrong)


def test_values_by_hand():
    ramp = torch.arange(16.0).view(1, 1, 4, 4) / 255
    shifted = enhance.warp(ramp, torch.tensor([[1.0, 0.0, 1.0, 0.0, 1.0, 0.0]])) * 255
    assert shifted[0, 0, 0].tolist() == pytest.approx([1, 2, 3, 0])  # reads its right neighbour
    turned = operator_arguments(
        torch.tensor([OPERATIONS.index("rotate")]), torch.tensor([90.0]), torch.zeros(2, 1), 4
    )
    quarter = enhance.warp(ramp, turned)[0, 0] * 255
    assert quarter.round().tolist() == (ramp[0, 0] * 255).rot90(1).round().tolist()
    pixel = torch.tensor([0b10110111 / 255]).view(1, 1, 1, 1)
    assert round(float(enhance.posterize(pixel, torch.tensor([3.0])) * 255)) == 0b10100000
    two = torch.tensor([50.0, 150.0]).view(1, 1, 1, 2) / 255
    assert enhance.autocontrast(two).flatten().tolist() == [0.0, 1.0]
    edge = torch.tensor([99.0, 100.0]).view(1, 1, 1, 2) / 255
    inverted = enhance.solarize_from(edge, torch.tensor([100.0])) * 255
    assert inverted.flatten().tolist() == pytest.approx([99, 155])
    spot = torch.zeros(1, 1, 5, 5)
    spot[0, 0, 2, 2] = 1.0
    smooth = enhance.sharpen(spot, torch.zeros(1))
    assert float(smooth[0, 0, 2, 2]) == pytest.approx(5 / 13)
    assert float(smooth[0, 0, 1, 1]) == pytest.approx(1 / 13)
    assert float(smooth[0, 0, 0].sum()) == 0.0  # the border is left alone


def test_extremes_are_finite_and_in_range():
    flat = torch.full((2, 3, 24, 24), 128, dtype=torch.uint8)
    tiny = noise(2, 2)
    for images in (flat, tiny, flat // 128 * 255, flat * 0):
        for space in SPACES.values():
            for name, values in space.items():
                out = on_batch(images, name, values.value(30.0))
                assert torch.isfinite(out).all(), name
                assert 0 <= out.min() <= out.max() <= 1, name
    assert torch.equal(on_batch(flat, "autocontrast", 0.0), flat / 255)


def test_the_default_list_is_torchvisions():
    """Names, magnitudes at 0, 10 and 30 and signs, from torchvision's own table."""
    table = TorchvisionRandAugment()._augmentation_space(31, (331, 331))
    ours = SPACES["torchvision"]
    assert [n.replace("_", "").lower() for n in ours] == [n.lower() for n in table]
    for (name, space), (values, signed) in zip(ours.items(), table.values(), strict=True):
        assert space.signed == signed, name
        for m in (0, 10, 30) if values.ndim else ():
            value = space.value(m)
            if "translate" in name:
                value *= 331
            if name == "posterize":
                value = math.floor(value + 0.5)
            assert value == pytest.approx(float(values[m]), abs=1e-4), name


def test_draws_of_probability_sign_and_operation():
    cfg = parse_augmentations([{**PLAIN, "randaugment": {"prob": 0.6, "num_ops": 2}}])[0]
    params = draw_randaugment(cfg.randaugment, 2, 3500, seeded())
    assert params.code.shape == params.value.shape == (2, 7000)
    counts = torch.bincount(params.code.flatten(), minlength=len(OPERATIONS))
    share = counts / params.code.numel()
    assert share[0] == pytest.approx(0.4 + 0.6 / 14, abs=0.02)  # identity is one of 14
    assert share[1:14].tolist() == pytest.approx([0.6 / 14] * 13, abs=0.012)
    assert share[14:].tolist() == [0.0, 0.0]
    values = params.value[params.code == OPERATIONS.index("rotate")]
    assert values.abs().unique().tolist() == [10.0]
    assert (values > 0).float().mean() == pytest.approx(0.5, abs=0.1)
    first, second = params.code
    assert (first == second).float().mean() < 0.3  # the operations of a view are drawn anew


def test_off_it_draws_nothing_and_on_it_leaves_the_other_steps_alone():
    """Two blocks: the second one's crops must not move when the first gets RandAugment."""
    view = {
        "rrc": {"enabled": True, "crop_min_scale": 0.3},
        "horizontal_flip": {"prob": 0.5},
        "crop_size": 24,
        "num_crops": 2,
    }
    extra = {**view, "randaugment": {"prob": 1.0, "num_ops": 2, "ops": "bcl"}}
    images = noise(20)
    plain_generator, generator = seeded(3), seeded(3)
    plain = batched_views([view, view], RECORD)(images, plain_generator)
    changed = batched_views([extra, view], RECORD)(images, generator)
    assert all(torch.equal(a, b) for a, b in zip(plain[2:], changed[2:], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(plain[:2], changed[:2], strict=True))
    off = {**view, "randaugment": {"prob": 0.0, "num_ops": 3, "magnitude": 20}}
    again = seeded(3)
    same = batched_views([off, view], RECORD)(images, again)
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    assert torch.equal(plain_generator.get_state(), again.get_state())
    torch.manual_seed(0)
    one = [v(images[0].permute(1, 2, 0).numpy()) for v in _both(off, view)]
    assert torch.equal(one[0][0], one[1][0])


def _both(*blocks):
    for block in blocks:
        torch.manual_seed(7)
        yield ViewTransform(parse_augmentations([block]), RECORD)


@pytest.mark.parametrize("name", ["rotate", "posterize", "invert", "cutout", "equalize"])
def test_it_comes_after_all_other_steps(name, monkeypatch):
    """RandAugment of the finished view, flip and solarization included, on both engines."""
    for space in SPACES:
        monkeypatch.setitem(SPACES, space, {name: Range(0.5, 0.5) if name == "cutout" else Range()})
    if name in ("rotate", "posterize"):
        monkeypatch.setitem(SPACES, "bcl", {name: Range(5.0, 5.0)})
    steps = {"horizontal_flip": {"prob": 1.0}, "solarization": {"prob": 1.0}}
    block = {**PLAIN, **steps, "randaugment": {"prob": 1.0, "ops": "bcl"}}
    images = noise()
    (parsed,) = parse_augmentations([block])
    value = SPACES["bcl"][name].low
    for i, view in enumerate(batched_views([block], RECORD)(images, seeded())[0]):
        before = F.solarize(pil(images[i].flip(2)), 128)
        if name == "cutout":
            # Where it lies is random: outside the square nothing changed, inside it is grey.
            changed = (view - tensor(before)).abs().amax(0) > 1e-4
            assert 0 < changed.sum() <= 13 * 13
            assert torch.allclose(view[:, changed], torch.tensor(123 / 255), atol=1e-5)
            continue
        expected = tensor(apply_pil(before, name, value))
        assert ((view - expected).abs() > 1.01 * LEVEL).float().mean() < 0.003
        torch.manual_seed(i)
        assert torch.allclose(view_transform(parsed, RECORD)(pil(images[i])), expected, atol=1e-6)


def statistics(views):
    """Mean, spread between and inside images, mean step between neighbours, share of black."""
    return [
        float(views.mean()),
        float(views.mean((1, 2, 3)).std()),
        float(views.std((2, 3)).mean()),
        float(views.diff(dim=3).abs().mean()),
        float((views < 1e-4).float().mean()),
    ]


@pytest.mark.parametrize("ops", SPACES)
def test_both_engines_agree_statistically(ops):
    count = 800
    coarse = torch.rand(count, 3, 5, 5, generator=seeded())
    images = torch.nn.functional.interpolate(coarse, size=24, mode="bicubic").clamp(0, 1)
    images = (images * 255).round().to(torch.uint8)
    block = {**PLAIN, "randaugment": {"prob": 0.8, "num_ops": 2, "magnitude": 18, "ops": ops}}
    (found,) = batched_views([block], RECORD)(images, seeded(1))
    transform = ViewTransform(parse_augmentations([block]), RECORD)
    torch.manual_seed(0)
    expected = torch.stack([transform(i.permute(1, 2, 0).numpy())[0] for i in images])
    assert statistics(found) == pytest.approx(statistics(expected), rel=0.08, abs=0.02)


def test_greyscale_images_give_the_same_views_as_three_equal_channels():
    grey = noise(64)[:, :1]
    for ops in SPACES:
        block = {**PLAIN, "randaugment": {"prob": 1.0, "num_ops": 2, "ops": ops}}
        (found,) = batched_views([block], RECORD)(grey, seeded(3))
        (expected,) = batched_views([block], RECORD)(grey.expand(-1, 3, -1, -1), seeded(3))
        assert ((found - expected).abs() < 1.01 * LEVEL).float().mean() > 0.999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prob": 1.5}, r"\[0\].randaugment.prob: expected a number from 0 to 1, got 1.5"),
        ({"magnitude": 31}, r"\[0\].randaugment.magnitude: expected a number from 0 to 30, got 31"),
        ({"num_ops": 0}, r"\[0\].randaugment.num_ops: expected a whole number of 1 or more, got 0"),
        ({"ops": "bcll"}, "Did you mean 'bcl'"),
        ({"strength": 3}, r"unknown key 'augmentations\[0\].randaugment.strength'"),
    ],
)
def test_bad_blocks(change, message):
    with pytest.raises(UserError, match=message):
        parse_augmentations([{**PLAIN, "randaugment": change}])


@on_a_gpu
def test_on_a_gpu_nothing_waits_for_the_device_and_the_views_are_the_same():
    block = {**PLAIN, "randaugment": {"prob": 1.0, "num_ops": 2, "ops": "bcl"}}
    views = batched_views([block], RECORD)
    for view, other in made_without_waiting(views, noise(64), seeded):
        assert ((view - other).abs() < 1.01 * LEVEL).float().mean() > 0.99
