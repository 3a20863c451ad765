# SPDX-License-Identifier: MIT
"""Batches of views: parameters, and agreement with the engine that works image by image."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from ltplugins.core.kernels import is_given_up
from ltplugins.data.augment.batch import views as batched
from ltplugins.data.augment.params import draw_crops, draw_params, sigma_values
from ltplugins.data.augment.pil import ViewTransform
from ltplugins.data.augment.schema import JitterConfig, RRCConfig, parse_augmentations
from ltplugins.data.sources.records import RECORDS
from tests.kit.data import batched_views
from tests.kit.gpu import made_without_waiting, on_a_gpu

RECORD = RECORDS["cifar10"]
PLAIN = {"crop_size": 16, "num_crops": 1, "mean": [0.0] * 3, "std": [1.0] * 3}
FULL = {
    "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0},
    "color_jitter": {
        "prob": 0.8,
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.4,
        "hue": 0.1,
    },
    "grayscale": {"prob": 0.2},
    "gaussian_blur": {"prob": 0.5},
    "solarization": {"prob": 0.2},
    "equalization": {"prob": 0.1},
    "horizontal_flip": {"prob": 0.5},
    "crop_size": 16,
    "num_crops": 2,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count, size=16, seed=0):
    """Smooth colour images, uint8 [count, 3, size, size]; noise would hide what a crop does."""
    coarse = torch.rand(count, 3, 4, 4, generator=seeded(seed))
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8)


def one_by_one(images, blocks, seed=0):
    """The same blocks through the transform of one image: V tensors."""
    transform = ViewTransform(parse_augmentations(blocks), RECORD)
    torch.manual_seed(seed)
    views = [transform(image.permute(1, 2, 0).numpy()) for image in images]
    return [torch.stack(v) for v in zip(*views, strict=True)]


def test_no_augmentation_is_equal_to_the_workers_engine():
    images = pictures(5)
    blocks = [{"crop_size": 16, "num_crops": 2}]
    views = batched_views(blocks, RECORD)(images, seeded())
    expected = one_by_one(images, blocks)
    assert len(views) == 2
    for view, other in zip(views, expected, strict=True):
        assert view.dtype == torch.float32
        assert torch.allclose(view, other, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "size"), [(16, 16, 12), (12, 12, 16), (10, 21, 8)])
def test_resize_without_rrc_is_equal_within_rounding(height, width, size):
    images = pictures(4, 21)[:, :, :height, :width]
    blocks = [{**PLAIN, "crop_size": size}]
    (view,) = batched_views(blocks, RECORD)(images, seeded())
    (expected,) = one_by_one(images, blocks)
    assert (view - expected).abs().max() <= 1.6 / 255


@pytest.mark.parametrize(
    "step",
    [
        *("horizontal_flip", "vertical_flip", "quarter_turn"),
        *("solarization", "equalization", "grayscale"),
    ],
)
def test_a_certain_step_is_equal_within_rounding(step):
    images = pictures(4)
    blocks = [{**PLAIN, step: {"prob": 1.0}}]
    (view,) = batched_views(blocks, RECORD)(images, seeded())
    (expected,) = one_by_one(images, blocks)
    assert (view - expected).abs().max() <= 1.1 / 255


def test_flip_with_rrc_off_and_on_mirrors_only_some():
    images = pictures(64)
    for rrc in ({}, {"enabled": True, "crop_min_scale": 1.0, "crop_max_scale": 1.0}):
        blocks = [{**PLAIN, "rrc": rrc, "horizontal_flip": {"prob": 0.5}}]
        (view,) = batched_views(blocks, RECORD)(images, seeded())
        kept = (view - images / 255).abs().amax((1, 2, 3)) < 1e-5
        mirrored = (view.flip(3) - images / 255).abs().amax((1, 2, 3)) < 1e-5
        # Scale 1 leaves the whole image: no other ratio fits, and the fallback is all of it.
        assert (kept ^ mirrored).all()
        assert 16 < mirrored.sum() < 48


def test_turns_come_after_one_another_and_in_front_of_randaugment():
    images = pictures(6)
    steps = {"vertical_flip": {"prob": 1.0}, "quarter_turn": {"prob": 1.0}}
    shear = {"randaugment": {"prob": 1.0, "num_ops": 1, "magnitude": 30, "ops": "bcl"}}
    (view,) = batched_views([{**PLAIN, **steps}], RECORD)(images, seeded())
    (expected,) = one_by_one(images, [{**PLAIN, **steps}])
    assert torch.allclose(view, expected, atol=1e-6)
    assert torch.allclose(view, images.transpose(2, 3).flip(2, 3) / 255, atol=1e-6)
    turned = images.transpose(2, 3).flip(2, 3).contiguous()
    (both,), (after,) = (
        batched_views([{**PLAIN, **more, **shear}], RECORD)(x, seeded())
        for more, x in ((steps, images), ({}, turned))
    )
    assert torch.equal(both, after)


def test_turns_leave_the_other_numbers_as_they_were():
    """Views of every block, unturned, are those of blocks without turns."""
    images = pictures(40)
    small = {**FULL, "crop_size": 8}
    never = {"vertical_flip": {"prob": 1e-9}, "quarter_turn": {"prob": 1e-9}}
    plain = batched_views([FULL, small], RECORD)(images, seeded())
    drawn = batched_views([{**FULL, **never}, {**small, **never}], RECORD)(images, seeded())
    assert all(torch.equal(one, other) for one, other in zip(plain, drawn, strict=True))


def test_flips_and_turns_make_every_way_in_which_a_square_lies():
    images = pictures(1).expand(1600, -1, -1, -1)
    half = {"prob": 0.5}
    block = {**PLAIN, "horizontal_flip": half, "vertical_flip": half, "quarter_turn": half}
    ways = [turned for m in (images[0], images[0].flip(2)) for turned in all_turns(m)]
    for views in (batched_views([block], RECORD)(images, seeded()), one_by_one(images, [block])):
        is_way = torch.stack([(views[0] - way / 255).abs().amax((1, 2, 3)) < 1e-5 for way in ways])
        assert (is_way.sum(0) == 1).all()
        assert is_way.sum(1).min() > 150 and is_way.sum(1).max() < 250


def all_turns(image):
    return [image.rot90(k, (1, 2)) for k in range(4)]


def test_every_view_belongs_to_its_image():
    """Rows are sorted inside; a wrong way back would give an image another one's view."""
    images = torch.arange(40, dtype=torch.uint8).mul(6).view(40, 1, 1, 1).expand(40, 3, 16, 16)
    jitter = {"prob": 0.5, "hue": 0.3, "saturation": 0.5}  # neither changes a grey image
    blocks = [{**FULL, **PLAIN, "color_jitter": jitter, "solarization": {}, "equalization": {}}]
    blocks[0]["num_crops"] = 3
    for view in batched_views(blocks, RECORD)(images, seeded()):
        assert torch.allclose(view, images / 255, atol=1e-5)


def test_greyscale_images_give_the_same_views_as_three_equal_channels():
    grey = pictures(20)[:, :1]
    found = batched_views([FULL], RECORD)(grey, seeded(3))
    expected = batched_views([FULL], RECORD)(grey.expand(-1, 3, -1, -1), seeded(3))
    for view, other in zip(found, expected, strict=True):
        assert view.shape == (20, 3, 16, 16)
        difference = (view - other).abs()
        # Equalize works on 256 levels: a last bit can move a pixel by one of them.
        assert difference.max() < 1.1
        assert (difference < 1e-3).float().mean() > 0.995


def test_views_depend_on_the_generator_alone(monkeypatch):
    images = pictures(30)
    state = torch.get_rng_state()
    first = batched_views([FULL], RECORD)(images, seeded(1))
    monkeypatch.setattr(batched, "CPU_PIECE", 5000)  # another way through the cache
    again = batched_views([FULL], RECORD)(images, seeded(1))
    other = batched_views([FULL], RECORD)(images, seeded(2))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(first, again, strict=True))
    assert not any(torch.allclose(a, b, atol=0.1) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(first[0], first[1])  # two views of one image differ


def test_crops_that_are_made_already():
    images = pictures(6)
    blocks = [{**PLAIN, "num_crops": 2}, {**PLAIN, "crop_size": 8}]
    small = pictures(6, 8, seed=1)
    views = batched_views(blocks, RECORD)([images, images.flip(3), small], seeded())
    assert torch.allclose(views[0], images / 255)
    assert torch.allclose(views[1], images.flip(3) / 255)
    assert torch.allclose(views[2], small / 255)


def moments(area, ratio):
    return [np.mean(area), np.std(area), np.mean(np.log(ratio)), np.std(np.log(ratio))]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 60)])
def test_crop_boxes_are_distributed_as_torchvisions(height, width):
    count = 4000
    found = draw_crops(RRCConfig(True, 0.08, 1.0), count, height, width, seeded())
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    boxes = [RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(count)]
    _, _, h, w = np.array(boxes, dtype=np.float64).T
    ours = [
        v.numpy().astype(np.float64) for v in (found.top, found.left, found.height, found.width)
    ]
    assert moments(ours[2] * ours[3] / (height * width), ours[3] / ours[2]) == pytest.approx(
        moments(h * w / (height * width), w / h), abs=0.015
    )
    # Where in the room that is left: 0 to 1, evenly.
    for place, side, full in [(0, 2, height), (1, 3, width)]:
        room = full - ours[side]
        share = ours[place][room > 0] / room[room > 0]
        assert share.min() >= 0
        assert share.max() <= 1
        assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert (ours[0] + ours[2] <= height).all()
    assert (ours[1] + ours[3] <= width).all()


def test_parameters_are_drawn_for_every_sample():
    (block,) = parse_augmentations([FULL])
    params = draw_params(block, 4000, 16, 16, seeded())
    rates = {"flip": 0.5, "grey": 0.2, "blur": 0.5, "solarize": 0.2, "equalize": 0.1}
    for name, rate in rates.items():
        assert getattr(params, name).float().mean() == pytest.approx(rate, abs=0.03)
    jitter = params.jitter
    assert jitter.apply.float().mean() == pytest.approx(0.8, abs=0.03)
    # A uniform factor from 0.6 to 1.4: mean 1, standard deviation 0.8 / sqrt(12).
    assert jitter.factor.mean(0).tolist() == pytest.approx([1.0] * 3, abs=0.02)
    assert jitter.factor.std(0).tolist() == pytest.approx([0.8 / math.sqrt(12)] * 3, abs=0.01)
    assert jitter.hue.std() == pytest.approx(0.2 / math.sqrt(12), abs=0.004)
    sigma = sigma_values([0.1, 2.0])[params.sigma_level]
    assert (sigma.min(), sigma.max()) == pytest.approx((0.1, 2.0), abs=0.02)
    assert (sigma.mean(), sigma.std()) == pytest.approx((1.05, 1.9 / math.sqrt(12)), abs=0.03)
    orders = {tuple(order) for order in jitter.rank.argsort(1).tolist()}
    assert len(orders) == 24
    correlation = torch.corrcoef(
        torch.stack([jitter.factor[:, 0], jitter.factor[:, 1], jitter.hue])
    )
    assert (correlation - torch.eye(3)).abs().max() < 0.06


def test_strong_jitter_does_not_draw_negative_factors():
    (block,) = parse_augmentations([{**PLAIN, "color_jitter": {"prob": 1, "brightness": 1.5}}])
    factor = draw_params(block, 1000, 16, 16, seeded()).jitter.factor
    assert factor[:, 0].min() >= 0
    assert factor[:, 0].max() > 2.4
    assert torch.equal(factor[:, 1], torch.ones(1000))


def test_jitter_follows_each_samples_order():
    """Against a loop: every sample, its operators one after the other in its own order."""
    from torchvision.transforms.v2 import functional as F

    images = pictures(60)
    strong = JitterConfig(0.8, 0.8, 0.8, 0.8, 0.3)
    blocks = parse_augmentations(
        [{**PLAIN, "color_jitter": {k: getattr(strong, k) for k in strong.__annotations__}}]
    )
    (view,) = batched.BatchedViews(blocks, RECORD)(images, seeded(5))
    jitter = draw_params(blocks[0], 60, 16, 16, seeded(5)).jitter
    operators = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    wrong_order = 0
    for i, image in enumerate(images / 255):
        parameters = [*jitter.factor[i].tolist(), float(jitter.hue[i])]
        order = jitter.rank[i].argsort().tolist() if jitter.apply[i] else []
        expected, backwards = image, image
        for k in order:
            expected = operators[k](expected, parameters[k])
        for k in order[::-1]:
            backwards = operators[k](backwards, parameters[k])
        assert (view[i] - expected).abs().max() < 5e-3, i
        wrong_order += bool((view[i] - backwards).abs().max() > 5e-3)
    assert wrong_order > 30  # the order is not a formality


def statistics(views):
    stacked = torch.cat(views)
    return torch.cat([stacked.mean((0, 2, 3)), stacked.std((0, 2, 3))])


def test_views_have_the_statistics_of_the_workers_engine():
    images = pictures(600)
    found = batched_views([FULL], RECORD)(images, seeded())
    expected = one_by_one(images, [FULL])
    assert torch.allclose(statistics(found), statistics(expected), atol=0.05)
    # Spread inside an image: crop size and blur; between channels: jitter and grayscale.
    for reduce in (lambda v: v.std((2, 3)).mean(), lambda v: v.mean((2, 3)).std(1).mean()):
        pair = [float(reduce(torch.cat(views))) for views in (found, expected)]
        assert pair[0] == pytest.approx(pair[1], rel=0.05)
    pair = [float(torch.cat(v).diff(dim=3).abs().mean()) for v in (found, expected)]
    assert pair[0] == pytest.approx(pair[1], rel=0.07)


@on_a_gpu
@pytest.mark.parametrize("height", [16, 12])
def test_on_a_gpu_nothing_waits_for_the_device_and_the_views_are_the_same(height):
    """By our kernels, where Triton is installed."""
    views = batched_views([FULL], RECORD)
    for view, other in made_without_waiting(views, pictures(64)[:, :, :height], seeded):
        assert ((view - other).abs() < 1e-3).float().mean() > 0.99
    assert not any(map(is_given_up, ("crops", "colour jitter")))
