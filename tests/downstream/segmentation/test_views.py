# SPDX-License-Identifier: MIT
"""Images and masks go through the same steps, drawn from seed, epoch and index alone."""

import numpy as np
import pytest
import torch

from ltplugins.downstream.segmentation.data import MaskModule, pad_batch
from ltplugins.downstream.segmentation.options import IGNORE, ViewConfig
from ltplugins.downstream.segmentation.pairs import ArrayPairs
from ltplugins.downstream.segmentation.views import Normalise, PlainView, TrainView

NORMALISE = Normalise([0.5] * 3, [0.5] * 3)
PLAIN_COLOURS = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def pair(seed=0, shape=(40, 48)):
    """A mask whose classes an image shows in its red channel, ten times as bright."""
    mask = np.random.default_rng(seed).integers(0, 8, shape).astype(np.uint8)
    image = np.stack([10 * mask, mask * 0, mask * 0], axis=-1)
    return image, mask


def shown(image):
    """The classes that an image shows."""
    return ((image[0] * 0.5 + 0.5) * 255 / 10).round().long()


def view(seed=0, is_land=True, **keys):
    return TrainView(ViewConfig(**{**PLAIN_COLOURS, **keys}), is_land, NORMALISE, seed)


def test_image_and_mask_are_turned_alike():
    image, mask = pair(shape=(40, 40))
    seen = set()
    for index in range(40):
        x, y = view()(image, mask, 0, index)
        assert torch.equal(shown(x), y)
        seen.add(y.numpy().tobytes())
    assert len(seen) == 8  # the ways in which a square can lie


def test_crops_are_padded_with_no_class():
    image, mask = pair()
    steps = view(is_land=False, crop=64, scale=[1.0, 1.0])
    x, y = steps(image, mask, 0, 0)
    assert x.shape == (3, 64, 64) and y.shape == (64, 64)
    assert (y == IGNORE).any()
    # Without a resize of its own, ScaleJitter fits the longer side into the crop.
    x, y = view(is_land=False, crop=32, scale=[2.0, 2.0])(image, mask, 0, 0)
    assert y.shape == (32, 32)
    assert set(y.unique().tolist()) <= {*range(8), IGNORE}  # no label is made of two


def test_draws_depend_on_seed_epoch_and_index_alone():
    image, mask = pair()
    steps = view(brightness=0.5)
    torch.manual_seed(1)
    first = steps(image, mask, 3, 7)
    state = torch.get_rng_state()
    assert torch.equal(steps(image, mask, 3, 7)[0], first[0])
    assert torch.equal(torch.get_rng_state(), state)  # of others is left alone
    others = [view(seed=1, brightness=0.5)(image, mask, 3, 7), steps(image, mask, 4, 7)]
    others.append(steps(image, mask, 3, 8))
    assert not any(torch.equal(other[0], first[0]) for other in others)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_has_each_image_once(num_workers):
    images, masks = (np.stack(x) for x in zip(*(pair(i, (32, 32)) for i in range(7)), strict=True))
    pairs = ArrayPairs(images, masks, "")
    data = MaskModule(pairs, pairs, view(), PlainView(NORMALISE), 2, num_workers)
    loader = data.train_dataloader()
    epochs = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        assert [len(x) for x, _ in batches] == [2, 2, 2]
        epochs.append(torch.cat([y for _, y in batches]))
    assert not torch.equal(*epochs)
    loader.sampler.set_epoch(0)
    assert torch.equal(torch.cat([y for _, y in loader]), epochs[0])
    whole = torch.cat([y for _, y in data.val_dataloader()])
    assert torch.equal(whole, torch.from_numpy(masks).long())


def test_ranks_share_each_part():
    images, masks = (np.stack(x) for x in zip(*(pair(i, (32, 32)) for i in range(7)), strict=True))
    pairs = ArrayPairs(images, masks, "")
    seen, drawn = [], []
    for rank in (0, 1):
        data = MaskModule(pairs, pairs, view(), PlainView(NORMALISE), 3, 0)
        data.trainer = type("Trainer", (), {"global_rank": rank, "world_size": 2})()
        seen += [y for _, batch in data.val_dataloader() for y in batch]
        assert len(data.train_dataloader()) == 1
        drawn += list(data.train_dataloader().sampler)
    expected = sorted(m.tobytes() for m in masks)
    assert sorted(y.numpy().astype(np.uint8).tobytes() for y in seen) == expected
    assert len(set(drawn)) == len(drawn) == 6


def test_images_of_several_sizes_are_padded_to_one():
    samples = [
        PlainView(NORMALISE)(*pair(i, shape)) for i, shape in enumerate([(40, 70), (64, 20)])
    ]
    images, masks = pad_batch(samples)
    assert images.shape == (2, 3, 64, 96)
    assert torch.equal(masks[0, :40, :70], samples[0][1])
    assert (masks[1, :, 20:] == IGNORE).all() and (images[1, :, :, 20:] == 0).all()
