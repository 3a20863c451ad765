# SPDX-License-Identifier: MIT
"""The augmentation schema and the transforms of one image."""

import dataclasses

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image, ImageOps
from torchvision.transforms import functional as F

from ltplugins.core.errors import UserError
from ltplugins.data.augment.pil import ViewTransform, view_transform
from ltplugins.data.augment.plain import eval_transform
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.sources.records import RECORDS, custom_record

# The text of solo-learn's scripts/pretrain/cifar/augmentations/asymmetric.yaml, one block of it.
YAML = """
- rrc:
    enabled: True
    crop_min_scale: 0.08
    crop_max_scale: 1.0
  color_jitter:
    prob: 0.8
    brightness: 0.4
    contrast: 0.4
    saturation: 0.2
    hue: 0.1
  grayscale:
    prob: 0.2
  gaussian_blur:
    prob: 0.0
  solarization:
    prob: 0.2
  equalization:
    prob: 0.0
  horizontal_flip:
    prob: 0.5
  crop_size: 32
  num_crops: 1
"""
RECORD = RECORDS["cifar10"]


def image(size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_solo_learns_yaml():
    (block,) = parse_augmentations(OmegaConf.create(YAML))
    assert (block.crop_size, block.num_crops) == (32, 1)
    assert block.color_jitter.saturation == 0.2
    assert block.gaussian_blur.sigma == [0.1, 2.0]
    assert parse_augmentations([dataclasses.asdict(block)]) == [block]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"color_jiter": {}},
            r"unknown key 'augmentations\[0\].color_jiter'. Did you mean 'color_j",
        ),
        ({"grayscale": {"p": 1}}, r"unknown key 'augmentations\[0\].grayscale.p'"),
        (
            {"grayscale": {"prob": 1.5}},
            r"\[0\].grayscale.prob: expected a number from 0 to 1, got 1.5",
        ),
        (
            {"rrc": {"crop_min_scale": 0.9, "crop_max_scale": 0.5}},
            r"crop_min_scale: expected a number of at most crop_max_scale \(0.5\)",
        ),
        (
            {"rrc": {"crop_min_scale": 0, "crop_max_scale": 0}},
            "crop_max_scale: expected a number above 0",
        ),
        (
            {"color_jitter": {"hue": 0.6}},
            "color_jitter.hue: expected a number from 0 to 0.5, got 0.6",
        ),
        (
            {"color_jitter": {"contrast": -1}},
            "color_jitter.contrast: expected a number of 0 or more, got -1",
        ),
        ({"crop_size": 0}, r"\[0\].crop_size: expected a whole number of 1 or more, got 0"),
        ({"crop_size": "32"}, r"\[0\].crop_size: expected a whole number of 1 or more, got '32'"),
        ({"gaussian_blur": {"sigma": [2.0, 1.0]}}, r"sigma: expected \[min, max\] in pixels"),
        ({"mean": [0.5]}, r"mean: expected a list of 3 numbers from 0 to 1, got \[0.5\]"),
        (
            {"std": [0.0, 0.5, 0.5]},
            r"std\[0\]: expected a number above 0 and of at most 1, got 0.0",
        ),
    ],
)
def test_bad_blocks(change, message):
    with pytest.raises(UserError, match=message):
        parse_augmentations([{"crop_size": 32, "num_crops": 1, **change}])


def test_bad_lists():
    with pytest.raises(UserError, match=r"augmentations\[0\].num_crops is missing"):
        parse_augmentations([{"crop_size": 32}])
    for value in ([], "symmetric.yaml", {"crop_size": 3}):
        with pytest.raises(UserError, match=r"expected a list of at least one block"):
            parse_augmentations(value)


def test_no_augmentation_is_to_tensor_and_normalise():
    (block,) = parse_augmentations([{"crop_size": 32, "num_crops": 1}])
    view = view_transform(block, RECORD)(Image.fromarray(image()))
    expected = F.normalize(F.to_tensor(Image.fromarray(image())), RECORD.mean, RECORD.std)
    assert torch.equal(view, expected)


def test_statistics_of_the_block_go_before_the_records():
    (block,) = parse_augmentations(
        [{"crop_size": 32, "num_crops": 1, "mean": [0.5] * 3, "std": [0.25] * 3}]
    )
    view = view_transform(block, RECORD)(Image.fromarray(image()))
    expected = (F.to_tensor(Image.fromarray(image())) - 0.5) / 0.25
    assert torch.allclose(view, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("step", "operator"),
    [
        ("solarization", ImageOps.solarize),
        ("equalization", ImageOps.equalize),
        ("horizontal_flip", ImageOps.mirror),
        ("vertical_flip", ImageOps.flip),
        ("quarter_turn", lambda p: p.rotate(90)),
        ("grayscale", lambda p: p.convert("L").convert("RGB")),
    ],
)
def test_each_step_does_its_operation_with_its_probability(step, operator):
    pil = Image.fromarray(image())
    plain = {"crop_size": 32, "num_crops": 1, "mean": [0.0] * 3, "std": [1.0] * 3}
    always, half = parse_augmentations(
        [{**plain, step: {"prob": 1.0}}, {**plain, step: {"prob": 0.5}}]
    )
    changed = F.to_tensor(operator(pil))
    assert torch.equal(view_transform(always, RECORD)(pil), changed)
    torch.manual_seed(0)
    transform = view_transform(half, RECORD)
    rate = np.mean([torch.equal(transform(pil), changed) for _ in range(200)])
    assert rate == pytest.approx(0.5, abs=0.11)


def test_views_follow_the_blocks():
    blocks = parse_augmentations(
        [{"crop_size": 16, "num_crops": 2}, {"crop_size": 8, "num_crops": 1}]
    )
    views = ViewTransform(blocks, RECORD)(image())
    assert [tuple(v.shape) for v in views] == [(3, 16, 16), (3, 16, 16), (3, 8, 8)]
    crops = ViewTransform(blocks, RECORD, crop_only=True)(image())
    assert [c.dtype for c in crops] == [torch.uint8] * 3


def test_resize_without_rrc_keeps_the_centre_of_an_oblong_image():
    (block,) = parse_augmentations([{"crop_size": 4, "num_crops": 1}])
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 255
    view = view_transform(block, custom_record(2))(Image.fromarray(wide))
    assert view.shape == (3, 4, 4)
    assert view.std(dim=(1, 2)).max() == 0  # white only


def test_blur_range_is_honoured():
    sharp = Image.fromarray(image())
    spread = []
    for low, high in ([0.1, 0.2], [1.5, 2.0]):
        (block,) = parse_augmentations(
            [{"crop_size": 32, "num_crops": 1, "gaussian_blur": {"prob": 1, "sigma": [low, high]}}]
        )
        spread.append(float(view_transform(block, RECORD)(sharp).std()))
    assert spread[1] < 0.5 * spread[0]


def test_eval_transform():
    same = eval_transform(RECORD)(image())
    assert torch.equal(same, F.normalize(F.to_tensor(image()), RECORD.mean, RECORD.std))
    assert eval_transform(RECORDS["imagenet"])(image(300)).shape == (3, 224, 224)
    assert eval_transform(RECORD, crop_size=28)(image(40)).shape == (3, 28, 28)
    own = eval_transform(RECORD, mean=[0, 0, 0], std=[1, 1, 1])(image())
    assert torch.equal(own, F.to_tensor(image()))
