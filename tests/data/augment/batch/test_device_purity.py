# SPDX-License-Identifier: MIT
"""The batched engine on a GPU that is not there: all on the device, and nothing waits for it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ltplugins.data.augment.batch import crop, jitter, views
from ltplugins.data.augment.strength import Boost
from ltplugins.data.sources.records import RECORDS
from tests.kit.data import batched_views
from tests.kit.fake_cuda import WAITS, FakeCuda, WaitsForDevice, fake_cuda
from tests.kit.views import PLAIN, VIEW

RECORD = RECORDS["cifar10"]
# Every step of a block, for some of the rows.
STEPS = ("grayscale", "gaussian_blur", "solarization", "equalization")
TURNS = ("vertical_flip", "quarter_turn")
FULL = {**VIEW, **{step: {"prob": 0.5} for step in (*STEPS, *TURNS)}}
BLOCKS: dict[str, dict[str, Any]] = {
    "full": FULL,
    "plain": PLAIN,
    "bcl": {**FULL, "randaugment": {"prob": 1.0, "num_ops": 2, "ops": "bcl"}},
    "torchvision": {**VIEW, "randaugment": {"prob": 1.0, "num_ops": 2, "ops": "torchvision"}},
}


@pytest.fixture
def mode() -> Iterator[FakeCuda]:
    with fake_cuda() as mode:
        yield mode
    views._blur_kernels.cache_clear()
    crop._fixed_matrix.cache_clear()


def noise(count: int = 32, height: int = 24, width: int = 24, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, device="cuda")


def made(make: Any, images: Any, mode: FakeCuda, *more: Any) -> list[torch.Tensor]:
    """The second batch's views: constants are made with the first."""
    mode.strict = False
    make(images, torch.Generator().manual_seed(0), *more)
    mode.strict = True
    return make(images, torch.Generator().manual_seed(1), *more)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shape", [(32, 24, 24, 3), (32, 20, 28, 1)])
def test_views_never_wait(name: str, shape: Any, mode: FakeCuda) -> None:
    make = batched_views([BLOCKS[name], PLAIN], RECORD)
    found = made(make, noise(*shape), mode)
    assert [view.shape for view in found] == [(32, 3, 16, 16)] * make.num_views
    assert {view.device.type for view in found} == {"cuda"}


def test_nor_views_of_crops_that_were_made_on_the_host(mode: FakeCuda) -> None:
    found = made(batched_views([FULL], RECORD), [noise(8, 16, 16), noise(8, 16, 16)], mode)
    assert {view.device.type for view in found} == {"cuda"}


def test_nor_views_that_follow_a_strength(mode: FakeCuda) -> None:
    make = batched_views([VIEW], RECORD)
    make.boost = Boost(num_ops=2, min_magnitude=5.0, random_factor=True, ops="bcl")
    strength = np.linspace(0, 1, 32, dtype=np.float32)
    assert {v.device.type for v in made(make, noise(), mode, strength)} == {"cuda"}


def test_a_batch_is_a_few_dozen_launches(mode: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch takes a host 5 to 40 microseconds, and the device works but a few on it.

    Two views by every step of solo-learn's symmetric CIFAR views, with our kernels.
    """
    for module in (crop, jitter):
        monkeypatch.setattr(module, "runs_kernel", lambda *_: True)
    block = {**VIEW, "num_crops": 2, **{step: {"prob": 0.2} for step in STEPS[:3]}}
    make = batched_views([block], RECORD)
    mode.strict = False
    make(noise(), torch.Generator().manual_seed(0))
    del mode.launches[:]
    make(noise(), torch.Generator().manual_seed(1))
    assert {"crop_matrices.default", "jitter_.default"} <= set(mode.launches)
    assert len(mode.launches) <= 48, mode.launches


def test_what_is_planted_is_found(mode: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    images, block = noise(), batched_views([FULL], RECORD)
    with monkeypatch.context() as patch:
        patch.setattr(crop, "move", lambda values, device: values.to(device, non_blocking=True))
        with pytest.raises(WaitsForDevice):
            made(block, images, mode)
    with monkeypatch.context() as patch:
        patch.setattr(views.ops, "solarize", lambda x: x * float(x.max()))
        with pytest.raises(WAITS):
            made(block, images, mode)
