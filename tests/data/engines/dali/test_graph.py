# SPDX-License-Identifier: MIT
"""The ``dali`` engine's views: each step against PIL, all of them against the other engines."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F

from ltplugins.core.seeding import RowStreams, mix_seed, mix_seeds
from ltplugins.data.augment.params import draw_params, sigma_values
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.sources.files import image_folder
from tests.kit.dali import DALI, smooth_image, write_jpegs
from tests.kit.data import loader_of, sampler_of

SIZE = 16
PLAIN = {"crop_size": SIZE, "num_crops": 1, "mean": [0.0] * 3, "std": [1.0] * 3}
JITTER = {"prob": 0.8, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.3}
FULL = {
    "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0},
    "color_jitter": {**JITTER, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "grayscale": {"prob": 0.2},
    "gaussian_blur": {"prob": 0.5},
    "solarization": {"prob": 0.2},
    "equalization": {"prob": 0.1},
    "horizontal_flip": {"prob": 0.5},
    "crop_size": SIZE,
    "num_crops": 2,
}


def pictures(count, width=SIZE, height=SIZE, seed=0):
    """Smooth colour images, uint8 [count, height, width, 3]."""
    rng = np.random.default_rng(seed)
    return np.stack([np.asarray(smooth_image(rng, width, height)) for _ in range(count)])


def views_of(images, blocks, engine="dali", seed=0, epoch=0):
    """Every view of every image, in the order of the images: V tensors."""
    source = images if hasattr(images, "load") else from_arrays(images, None)
    options = {"engine": engine, "batch_size": 64, "drop_last": False}
    loader = loader_of(source, blocks, seed=seed, **options)
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    back = torch.cat([batch[0] for batch in batches]).argsort()
    views = zip(*(batch[1] for batch in batches), strict=True)
    return [torch.cat(view)[back] for view in views]


def params_of(images, block, seed=0, epoch=0):
    """The numbers that the engine draws for the first crop, in the order of the images."""
    (parsed,) = parse_augmentations([block])
    sampler = sampler_of("shuffle", np.zeros(len(images)), seed=seed)
    sampler.set_epoch(epoch)
    numbers = np.empty(len(images), dtype=np.int64)
    numbers[sampler.positions()] = sampler.numbers()
    streams = RowStreams(mix_seeds(mix_seeds(seed, epoch, numbers), 0, 0))
    return draw_params(parsed, len(images), *images.shape[1:3], streams)


def as_pil(image):
    return Image.fromarray(image)


def to_float(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


# --- random numbers: nothing of DALI ---------------------------------------------------------


def test_seeds_of_arrays_are_those_of_numbers():
    numbers = np.array([0, 1, 5, 2**40, 2**62])
    found = mix_seeds(7, numbers, 3)
    assert found.dtype == np.uint64
    assert found.tolist() == [mix_seed(7, int(n), 3) for n in numbers]
    assert mix_seeds(7, np.arange(3)[:, None], np.arange(4)).shape == (3, 4)


def test_a_rows_numbers_do_not_depend_on_the_other_rows():
    (block,) = parse_augmentations([FULL])
    seeds = mix_seeds(1, np.arange(50))
    sides = torch.arange(20.0, 70.0, dtype=torch.float64)
    every = draw_params(block, 50, sides, sides * 2, RowStreams(seeds))
    some = draw_params(block, 2, sides[[7, 30]], 2 * sides[[7, 30]], RowStreams(seeds[[7, 30]]))
    assert torch.equal(every.crop.height[[7, 30]], some.crop.height)
    assert torch.equal(every.jitter.rank[[7, 30]], some.jitter.rank)
    assert torch.equal(every.sigma_level[[7, 30]], some.sigma_level)


def test_streams_are_uniform_and_independent():
    streams = RowStreams(mix_seeds(3, np.arange(4000)))
    first, second = streams.rand(4000, (2,), (3,)), streams.rand(4000)
    assert first.shape == (2, 4000, 3)
    columns = torch.cat([first.permute(0, 2, 1).reshape(6, 4000), second[None]])
    assert columns.mean(1).tolist() == pytest.approx([0.5] * 7, abs=0.02)
    assert columns.std(1).tolist() == pytest.approx([12**-0.5] * 7, abs=0.01)
    assert 0 <= columns.min() < columns.max() < 1
    assert (torch.corrcoef(columns) - torch.eye(7)).abs().max() < 0.06


# --- each step against PIL -------------------------------------------------------------------

dali_test = pytest.mark.parametrize("engine", [DALI])


@dali_test
def test_jitter_follows_each_samples_order(engine):
    """Against a loop: every sample, its operators one after the other in its own order."""
    images = pictures(80)
    block = {**PLAIN, "color_jitter": JITTER}
    (view,) = views_of(images, [block], engine)
    jitter = params_of(images, block).jitter
    operators = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    errors, backward_errors = [], []
    for i, image in enumerate(images):
        values = [*jitter.factor[i].tolist(), float(jitter.hue[i])]
        order = jitter.rank[i].argsort().tolist() if jitter.apply[i] else []
        for way, into in ((order, errors), (order[::-1], backward_errors)):
            expected = as_pil(image)
            for k in way:
                expected = operators[k](expected, values[k])
            into.append(float((view[i] - to_float(expected)).abs().mean() * 255))
    # PIL keeps hue and saturation in 8 bits; a wrong order or a linear hue is far off.
    assert max(errors) < 4
    assert np.mean(errors) < 1.5
    assert np.mean([e > 4 for e in backward_errors]) > 0.4


@dali_test
def test_hue_is_that_of_hsv(engine):
    """Against the definition in floats; DALI's own linear hue is off by tens of levels."""
    images = pictures(40)
    block = {**PLAIN, "color_jitter": {"prob": 1.0, "hue": 0.5}}
    (view,) = views_of(images, [block], engine)
    shift = params_of(images, block).jitter.hue
    from torchvision.transforms.v2.functional import adjust_hue

    for i, image in enumerate(images):
        expected = adjust_hue(to_float(image), float(shift[i]))
        assert (view[i] - expected).abs().max() < 1.6 / 255, i


@dali_test
@pytest.mark.parametrize(
    ("step", "levels"),
    [
        *(("horizontal_flip", 0), ("vertical_flip", 0), ("quarter_turn", 0)),
        *(("solarization", 0), ("grayscale", 1)),
    ],
)
def test_a_certain_step_is_pils(engine, step, levels):
    images = pictures(8)
    blocks = [{**PLAIN, step: {"prob": 1.0}}]
    (view,), (expected,) = views_of(images, blocks, engine), views_of(images, blocks, "workers")
    difference = (view - expected).abs() * 255
    assert difference.max() < levels + 0.5
    assert difference.mean() < 1
    (plain,) = views_of(images, [PLAIN], "workers")
    assert (plain - expected).abs().mean() * 255 > 2  # the step does something


@dali_test
def test_equalize_is_the_usual_definition(engine):
    """Levels by their share of the pixels above the darkest level's; PIL's steps are whole."""
    images = pictures(8, 40, 40)
    block = {**PLAIN, "crop_size": 40, "equalization": {"prob": 1.0}}
    (view,) = views_of(images, [block], engine)
    for image, found in zip(images, view, strict=True):
        for channel in range(3):
            plane = image[..., channel]
            below = np.bincount(plane.reshape(-1), minlength=256).cumsum()
            first = below[plane.min()]
            expected = (below - first) / (plane.size - first)
            assert (found[channel] - torch.from_numpy(expected[plane])).abs().max() < 1.1 / 255
    (pil,) = views_of(images, [block], "workers")
    assert (view - pil).abs().mean() < 8 / 255


@dali_test
def test_blur_is_a_gaussian_of_the_samples_sigma(engine):
    images = pictures(60, 32, 32)
    block = {**PLAIN, "crop_size": 32, "gaussian_blur": {"prob": 1.0, "sigma": [0.1, 2.0]}}
    (view,) = views_of(images, [block], engine)
    sigma = sigma_values([0.1, 2.0])[params_of(images, block).sigma_level]
    assert sigma.min() < 0.4 < 1.7 < sigma.max()
    for i, image in enumerate(images):
        expected = to_float(as_pil(image).filter(ImageFilter.GaussianBlur(float(sigma[i]))))
        inside = (view[i] - expected).abs()[:, 6:-6, 6:-6]
        assert inside.max() * 255 < 6, (i, sigma[i])
    nothing = {**block, "gaussian_blur": {"prob": 1.0, "sigma": [0.0, 0.0]}}
    assert torch.allclose(views_of(images, [nothing], engine)[0][0], to_float(images[0]))


@dali_test
@pytest.mark.parametrize(("width", "height"), [(16, 16), (21, 12), (12, 12), (40, 30)])
def test_crop_and_resize_are_pils(engine, width, height):
    images = pictures(40, width, height)
    block = {**PLAIN, "rrc": {"enabled": True}, "horizontal_flip": {"prob": 0.5}}
    (view,) = views_of(images, [block], engine)
    params = params_of(images, block)
    boxes = torch.stack(
        [params.crop.top, params.crop.left, params.crop.height, params.crop.width], 1
    )
    for i, image in enumerate(images):
        box = boxes[i].int().tolist()
        expected = F.resized_crop(as_pil(image), *box, [SIZE, SIZE], F.InterpolationMode.BICUBIC)
        expected = to_float(F.hflip(expected) if params.flip[i] else expected)
        difference = (view[i] - expected).abs() * 255
        # PIL cuts the kernel at the border, DALI repeats the border's pixel.
        assert difference[:, 2:-2, 2:-2].max() < 5.1, i
        assert difference.max() < 20, i
        assert difference.mean() < 1, i


@dali_test
@pytest.mark.parametrize(("width", "height"), [(16, 16), (21, 12), (12, 12), (30, 41)])
def test_without_rrc_the_shorter_side_is_resized_and_the_centre_kept(engine, width, height):
    images = pictures(5, width, height)
    for source in (images, images[..., 0]):
        (view,), (expected,) = (
            views_of(source, [PLAIN], engine),
            views_of(source, [PLAIN], "workers"),
        )
        difference = (view - expected).abs() * 255
        assert difference.mean() < (1 if (width, height) != (16, 16) else 1e-4)
        assert difference[..., 2:-2, 2:-2].max() < 3.1


# --- against the other engines, all steps on ---------------------------------------------------


@dali_test
def test_small_crops_and_two_blocks(engine):
    images = pictures(6, 20, 20)
    blocks = [FULL, {**FULL, "crop_size": 8, "num_crops": 3, "mean": [0.1] * 3, "std": [0.5] * 3}]
    views = views_of(images, blocks, engine)
    assert [tuple(v.shape) for v in views] == [(6, 3, 16, 16)] * 2 + [(6, 3, 8, 8)] * 3
    assert len({float(v.sum()) for v in views}) == 5
    assert views[2].min() >= -0.2 - 1e-6  # black, in the second block's statistics
    assert views[0].min() < -1.5


@dali_test
def test_grey_images_give_the_views_of_three_equal_channels(engine):
    grey = pictures(60)[..., 0]
    colour = np.repeat(grey[..., None], 3, axis=-1)
    for view, other in zip(*(views_of(i, [FULL], engine) for i in (grey, colour)), strict=True):
        assert view.shape == (60, 3, SIZE, SIZE)
        # Luma is rounded to 8 bits: a level now and then, more where equalize spreads it.
        assert ((view - other).abs() < 0.05).float().mean() > 0.97


def statistics(views):
    stacked = torch.cat(views)
    return torch.cat([stacked.mean((0, 2, 3)), stacked.std((0, 2, 3))])


@dali_test
@pytest.mark.parametrize("other", ["workers", "batched"])
@pytest.mark.parametrize("files", [False, True])
def test_views_have_the_statistics_of_the_other_engines(engine, other, files, tmp_path):
    images = image_folder(write_jpegs(tmp_path, (200, 150))) if files else pictures(600)
    found, expected = (views_of(images, [FULL], e) for e in (engine, other))
    assert torch.allclose(statistics(found), statistics(expected), atol=0.06)
    # Spread inside an image: crop size and blur; between channels: jitter and grayscale.
    for reduce in (
        lambda v: v.std((2, 3)).mean(),
        lambda v: v.mean((2, 3)).std(1).mean(),
        lambda v: v.diff(dim=3).abs().mean(),
    ):
        pair = [float(reduce(torch.cat(views))) for views in (found, expected)]
        assert pair[0] == pytest.approx(pair[1], rel=0.1)


@dali_test
@pytest.mark.parametrize("files", [False, True])
def test_turns_are_those_of_the_workers_engine(engine, files, tmp_path):
    """Certain ones are equal; of uncertain ones as many, and each is some way of the image."""
    images = image_folder(write_jpegs(tmp_path, (9, 7))) if files else pictures(16)
    steps = {"vertical_flip": {"prob": 1.0}, "quarter_turn": {"prob": 1.0}}
    (view,), (expected,) = (views_of(images, [{**PLAIN, **steps}], e) for e in (engine, "workers"))
    assert ((view - expected).abs() * 255).mean() < 1.5
    assert (view - expected.flip(2)).abs().mean() * 255 > 5
    if not files:
        assert torch.allclose(view, expected, atol=1e-4)
    same = pictures(1).repeat(1200, 0)
    half = {name: {"prob": 0.5} for name in ("horizontal_flip", *steps)}
    whole = {"rrc": {"enabled": True, "crop_min_scale": 1.0}}
    image = to_float(same[0])
    ways = [m.rot90(k, (1, 2)) for m in (image, image.flip(2)) for k in range(4)]
    for block in ({**PLAIN, **half}, {**PLAIN, **half, **whole}):
        (views,) = views_of(same, [block], engine)
        counts = torch.stack([(views - way).abs().amax((1, 2, 3)) < 3 / 255 for way in ways]).sum(1)
        assert counts.sum() == 1200 and counts.min() > 105 and counts.max() < 195


def crops_seen(views):
    """Share of the area and mirrored or not, read off views of a ramp: red along x, green along y.

    A crop of width w of a ramp from 0 to 1 is a ramp of slope w / S.
    """
    width = views[:, 0].diff(dim=2).mean((1, 2)) * SIZE
    height = views[:, 1].diff(dim=1).mean((1, 2)) * SIZE
    return (width.abs() * height), width < 0


@dali_test
@pytest.mark.parametrize("other", ["workers", "batched"])
def test_crop_areas_and_flips_are_those_of_the_other_engines(engine, other):
    side = 48
    ramp = np.zeros((side, side, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 255, side)[None]
    ramp[..., 1] = np.linspace(0, 255, side)[:, None]
    images = np.repeat(ramp[None], 1500, axis=0)
    block = {**PLAIN, "rrc": {"enabled": True}, "horizontal_flip": {"prob": 0.3}}
    (found, mirrored), (expected, others) = (
        crops_seen(views_of(images, [block], e)[0]) for e in (engine, other)
    )
    levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    assert torch.allclose(found.quantile(levels), expected.quantile(levels), atol=0.05)
    assert float(found.mean()) == pytest.approx(float(expected.mean()), abs=0.025)
    assert float(mirrored.float().mean()) == pytest.approx(0.3, abs=0.04)
    assert float(others.float().mean()) == pytest.approx(0.3, abs=0.04)


@dali_test
@pytest.mark.parametrize("other", ["workers", "batched"])
@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation", "hue"])
def test_jitter_has_the_spread_of_the_other_engines(engine, other, kind):
    """One colour on the left, another on the right; what becomes of both, sample by sample."""
    image = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    image[:, :8], image[:, 8:] = (100, 120, 60), (130, 60, 90)
    images = np.repeat(image[None], 1200, axis=0)
    block = {**PLAIN, "color_jitter": {"prob": 0.8, kind: 0.4 if kind != "hue" else 0.2}}
    found, expected = (views_of(images, [block], e)[0][..., [2, 13]] for e in (engine, other))
    assert torch.allclose(found.mean((0, 2)), expected.mean((0, 2)), atol=0.02)
    assert torch.allclose(found.std(0), expected.std(0), atol=0.008)
    assert expected.std(0).max() > 0.025
