# SPDX-License-Identifier: MIT
"""Extraction leaves no trace; the cache is hit, missed, and survives damage."""

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ltplugins.core.errors import UserError
from ltplugins.eval.features import cached_features, extract_features, feature_key, weights_hash


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1)
    )


def images(num: int = 10) -> TensorDataset:
    pixels = torch.rand(num, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(pixels, torch.arange(num))


class NoisyPixels(torch.utils.data.Dataset):
    """Draws from every global generator, as random transforms do."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        shift = random.random() + np.random.rand()
        return torch.rand(3, 8, 8) + shift, index


def test_values_modes_and_types() -> None:
    net = small_net()
    net[1].eval()  # a part the user froze stays frozen, the rest goes back to training
    before = [child.training for child in net.modules()]
    weights = weights_hash(net)
    feats, targets = extract_features(net, DataLoader(images(), batch_size=4), "cpu")
    assert [child.training for child in net.modules()] == before
    assert weights_hash(net) == weights  # BatchNorm saw eval mode: its statistics did not move
    assert feats.shape == (10, 4) and feats.dtype == torch.float32 and not feats.requires_grad
    assert targets.tolist() == list(range(10))
    expected = net.eval()(images().tensors[0]).flatten(1)
    torch.testing.assert_close(feats, expected.detach())


def test_training_batches_give_their_first_view() -> None:
    net = small_net()
    pixels, targets = images(4).tensors
    batch = [torch.arange(4), [pixels, torch.zeros_like(pixels)], targets]
    feats, _ = extract_features(net, [batch], "cpu")
    plain, _ = extract_features(net, [(pixels, targets)], "cpu")
    assert torch.equal(feats, plain)
    with pytest.raises(UserError, match="got 1 parts"):
        extract_features(net, [[pixels]], "cpu")


def test_random_generators_are_left_alone() -> None:
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    expected = torch.rand(2), random.random(), np.random.rand()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    extract_features(small_net_without_seeding(), DataLoader(NoisyPixels(), batch_size=2), "cpu")
    assert torch.equal(torch.rand(2), expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]


def small_net_without_seeding() -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


def test_mode_comes_back_after_an_error() -> None:
    net = small_net()
    with pytest.raises(RuntimeError):
        extract_features(net, [(torch.zeros(1, 5, 8, 8), torch.zeros(1))], "cpu")
    assert all(child.training for child in net.modules())


def test_nothing_and_nan_are_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        extract_features(small_net(), [], "cpu")
    batch = torch.full((1, 3, 8, 8), torch.nan), torch.zeros(1)
    with pytest.raises(UserError, match="training has diverged"):
        extract_features(small_net(), [batch], "cpu")


def test_hash_sees_values_buffers_and_structure() -> None:
    net, other = small_net(), small_net()
    assert weights_hash(net) == weights_hash(other)
    other[1].num_batches_tracked += 1
    assert weights_hash(net) != weights_hash(other)
    half = small_net().to(torch.bfloat16)
    assert weights_hash(half) != weights_hash(net)
    strided = small_net()
    strided[0].stride = (2, 2)
    assert weights_hash(net) == weights_hash(strided)
    keys = {
        feature_key(net, "a", "t"),
        feature_key(strided, "a", "t"),
        feature_key(net, "b", "t"),
        feature_key(net, "a", "u"),
    }
    assert len(keys) == 4
    assert feature_key(small_net(), "a", "t") in keys


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return torch.arange(6.0).reshape(3, 2), torch.tensor([2, 0, 1])


def test_cache_hit_and_miss(tmp_path: Path) -> None:
    compute = Counter()
    first = cached_features("aa", tmp_path / "cache", compute)
    again = cached_features("aa", tmp_path / "cache", compute)
    assert compute.calls == 1
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    cached_features("bb", tmp_path / "cache", compute)
    assert compute.calls == 2
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [
        "aa.safetensors",
        "bb.safetensors",
    ]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_damaged_cache_is_computed_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    compute = Counter()
    cached_features("aa", tmp_path, compute)
    path = tmp_path / "aa.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-1] ^= 1  # a valid file with one wrong bit
    bad = {"cut": data[:-5], "flip": data, "empty": b"", "other": b"not a tensor file"}[damage]
    path.write_bytes(bad)
    with caplog.at_level(logging.WARNING):
        feats, targets = cached_features("aa", tmp_path, compute)
    assert "aa.safetensors is damaged" in caplog.text
    assert compute.calls == 2
    assert targets.tolist() == [2, 0, 1] and feats.shape == (3, 2)
    cached_features("aa", tmp_path, compute)
    assert compute.calls == 2


def test_failed_computation_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> tuple[Tensor, Tensor]:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        cached_features("aa", tmp_path, fail)
    assert list(tmp_path.iterdir()) == []
