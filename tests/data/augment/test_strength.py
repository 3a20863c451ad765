# SPDX-License-Identifier: MIT
"""Strengths per training image: from the table in shared memory to the views of every engine."""

import dataclasses

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.data.augment.batch.randaugment import draw_randaugment
from ltplugins.data.augment.randaugment import OPERATIONS, RandAugment
from ltplugins.data.augment.strength import Boost, StrengthTable
from ltplugins.data.engines.build import build_loader
from ltplugins.data.engines.draws import RawBatch
from ltplugins.data.samplers.base import Shard
from tests.kit.data import data_module
from tests.kit.tiny import write_arrays, write_folder

PLAIN = {"crop_size": 16, "num_crops": 2, "mean": [0.0] * 3, "std": [1.0] * 3}
VARIANT_I = Boost(1, 10.0, False)
VARIANT_D = Boost(2, 5.0, True)


@pytest.fixture
def folder(tmp_path):
    write_arrays(tmp_path / "train.npz")
    write_arrays(tmp_path / "pool.npz", (6, 6), seed=2)
    return tmp_path


def make(folder, boost=VARIANT_I, blocks=(PLAIN,), batch_size=6, **changes):
    cfg = {
        "dataset": "custom",
        "format": "arrays",
        "train_path": str(folder / "train.npz"),
        "engine": "batched",
        "num_workers": 0,
        **changes,
    }
    optimizer = {"batch_size": batch_size}
    data = data_module(
        OmegaConf.create(
            {"data": cfg, "augmentations": list(blocks), "optimizer": optimizer, "seed": 3}
        )
    )
    if boost is not None:
        data.boost_views(boost)
    return data


def changed(data, batch):
    """Whether each image's views are not simply the image, {index: [bool of each view]}."""
    out = {}
    training = data.training
    for row, index in enumerate(batch[0].tolist()):
        if index < training.num_samples:
            image = training.source.load(int(training.split.indices[index]))
        else:
            image = training.ood_source.load(index - training.num_samples)
        plain = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        out[index] = [bool((v[row] - plain).abs().max() > 1e-4) for v in batch[1]]
    return out


def epoch(data, loader, number):
    loader.sampler.set_epoch(number)
    out = {}
    for batch in loader:
        out.update(changed(data, batch))
    return out


@pytest.mark.parametrize("engine", ["workers", "batched"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_persistent_workers_see_new_strengths(engine, num_workers, folder):
    data = make(folder, engine=engine, num_workers=num_workers)
    loader = data.train_dataloader()
    assert not any(any(views) for views in epoch(data, loader, 0).values())  # 0 at first
    strengths = torch.zeros(data.num_samples)
    strengths[::2] = 1.0
    data.set_strength(strengths)
    seen = epoch(data, loader, 1)
    assert len(seen) == 42
    assert not any(any(views) for index, views in seen.items() if index % 2)
    boosted = [view for index, views in seen.items() if index % 2 == 0 for view in views]
    assert np.mean(boosted) > 0.8  # some operations leave some images as they are
    data.set_strength(torch.zeros(data.num_samples))
    assert not any(any(views) for views in epoch(data, loader, 2).values())


@pytest.mark.parametrize("boost", [VARIANT_I, VARIANT_D])
def test_probability_and_magnitude_follow_the_strength(boost):
    strength = np.array([0.0, 0.2, 0.5, 0.9, 1.0], dtype=np.float32).repeat(1000)
    generator = torch.Generator().manual_seed(0)
    params = draw_randaugment(boost.config(), 2, len(strength), generator, boost, strength)
    assert params.code.shape == (boost.num_ops, 2 * len(strength))
    applied = (params.code > 0).view(boost.num_ops, 2, 5, 1000).float().mean((0, 1, 3))
    assert applied.tolist() == pytest.approx([0, 0.2, 0.5, 0.9, 1.0], abs=0.03)
    assert applied[0] == 0
    assert applied[4] == 1
    # Rotations are 2 degrees a unit of magnitude, of either sign.
    magnitude = params.value.abs() / 2
    rotated = params.code == OPERATIONS.index("rotate")
    for k, h in enumerate((0.2, 0.5, 0.9, 1.0), 1):
        own = torch.zeros(len(strength), dtype=torch.bool)
        own[1000 * k : 1000 * (k + 1)] = True
        values = magnitude[rotated & own.repeat(2)]
        if boost.random_factor:
            assert values.min() >= 5
            assert values.max() <= 5 + 25 * h + 1e-4
            assert values.mean() == pytest.approx(5 + 12.5 * h, rel=0.1)
        else:
            assert values.tolist() == pytest.approx([10 + 20 * h] * len(values))


def test_the_random_factor_is_one_for_all_views_of_an_image():
    strength = np.ones(600, dtype=np.float32)
    generator = torch.Generator().manual_seed(0)
    params = draw_randaugment(VARIANT_D.config(), 2, 600, generator, VARIANT_D, strength)
    rotated = (params.code == OPERATIONS.index("rotate")).view(2, 2, 600)
    values = params.value.abs().view(2, 2, 600)
    both = rotated[0, 0] & rotated[0, 1]
    assert both.sum() > 0
    assert torch.equal(values[0, 0][both], values[0, 1][both])
    assert values[0, 0][rotated[0, 0]].std() > 1


@pytest.mark.parametrize("boost", [VARIANT_I, VARIANT_D])
def test_the_workers_engine_is_told_the_same(boost, folder, monkeypatch):
    told = []
    monkeypatch.setattr(
        RandAugment,
        "__call__",
        lambda self, image, prob, magnitude: told.append((self.cfg, prob, magnitude)) or image,
    )
    data = make(folder, boost, engine="workers")
    strengths = torch.linspace(0, 1, data.num_samples)
    data.set_strength(strengths)
    order = torch.cat([batch[0] for batch in data.train_dataloader()])
    assert len(told) == 2 * len(order)
    factors = []
    for i, index in enumerate(order.tolist()):
        h = float(strengths[index])
        (cfg, prob, magnitude), second = told[2 * i : 2 * i + 2]
        assert second == (cfg, prob, magnitude)
        assert (cfg.num_ops, cfg.ops) == (boost.num_ops, "bcl")
        assert prob == pytest.approx(h)
        if h > 0:
            factors.append((magnitude - boost.min_magnitude) / ((30 - boost.min_magnitude) * h))
    if boost.random_factor:
        assert min(factors) > 0
        assert max(factors) < 1
        assert 0.35 < np.mean(factors) < 0.65
    else:
        assert factors == pytest.approx([1.0] * len(factors))


@pytest.mark.parametrize("engine", ["workers", "batched"])
def test_an_image_of_strength_0_does_not_feel_the_others(engine, folder):
    """Crops and colours are drawn alike, whatever the strengths are."""
    view = {**PLAIN, "rrc": {"enabled": True}, "horizontal_flip": {"prob": 0.5}}
    view["color_jitter"] = {"prob": 0.8, "brightness": 0.4, "hue": 0.1}

    def views(strengths):
        data = make(folder, VARIANT_D, (view,), engine=engine)
        data.set_strength(strengths)
        return {
            int(index): torch.stack([v[row] for v in batch[1]])
            for batch in data.train_dataloader()
            for row, index in enumerate(batch[0])
        }

    some = torch.zeros(42)
    some[:21] = 1.0
    none, half, full = views(torch.zeros(42)), views(some), views(torch.ones(42))
    for index in range(42):
        expected = full if index < 21 else none
        assert torch.equal(half[index], expected[index])
    assert sum(not torch.equal(none[i], full[i]) for i in range(42)) > 35


def test_boosting_leaves_the_other_steps_of_the_batched_engine_alone(folder):
    view = {**PLAIN, "rrc": {"enabled": True}, "horizontal_flip": {"prob": 0.5}}
    boosted = list(make(folder, blocks=(view,)).train_dataloader())
    plain = list(make(folder, None, (view,)).train_dataloader())
    for a, b in zip(boosted, plain, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def test_ood_images_are_not_boosted(folder):
    ood = {"dataset": "custom", "format": "arrays", "train_path": str(folder / "pool.npz")}
    data = make(folder, sampler="id_plus_ood", ood=ood)
    data.set_ood(np.arange(12))
    data.set_strength(torch.ones(data.num_samples))
    seen = epoch(data, data.train_dataloader(), 1)
    assert {index for index in seen if index >= 42} == set(range(42, 54))
    assert not any(any(views) for index, views in seen.items() if index >= 42)
    assert np.mean([any(views) for index, views in seen.items() if index < 42]) > 0.8


@pytest.mark.parametrize("kind", ["arrays", "image_folder"])
def test_raw_batches_carry_the_strengths(kind, folder):
    if kind == "image_folder":
        write_folder(folder / "images", (20, 22), size=16)
        path = {"format": kind, "train_path": str(folder / "images")}
    else:
        path = {}
    data = make(folder, **path)
    strengths = torch.rand(42, generator=torch.Generator().manual_seed(1))
    data.set_strength(strengths)
    finished = list(data.train_dataloader())
    loader = build_loader(data.training, Shard(seed=3), torch.device("cuda"))
    for batch, expected in zip(loader, finished, strict=True):
        assert isinstance(batch, RawBatch)
        assert isinstance(batch.strength, np.ndarray)  # a tensor would go to the device
        assert batch.strength.tolist() == strengths[batch.indexes].tolist()
        for view, other in zip(loader.finish(batch)[1], expected[1], strict=True):
            assert torch.allclose(view, other)
    assert any(any(v) for b in finished for v in changed(data, b).values()) or kind != "arrays"


@pytest.mark.parametrize("engine", ["workers", "batched"])
def test_a_replaced_image_has_its_own_strength(engine, folder):
    root = write_folder(folder / "images", (4, 4), size=16)
    (root / "class0/0.png").write_bytes(b"no image")
    data = make(
        folder,
        batch_size=8,
        format="image_folder",
        train_path=str(root),
        on_corrupt="skip",
        engine=engine,
    )
    strengths = torch.ones(8)
    strengths[1:] = 0.0  # the damaged one alone
    data.set_strength(strengths)
    for number in range(3):
        seen = epoch(data, data.train_dataloader(), number)
        assert 0 not in seen
        assert not any(any(views) for views in seen.values())


def test_the_table_refuses_what_is_no_strength():
    table = StrengthTable(VARIANT_I, 3, 2)
    assert table.of(np.array([0, 4])).tolist() == [0.0, 0.0]
    table.set(torch.tensor([0.0, 0.5, 1.0]))
    assert table.of(np.array([2, 4, 1, 3])).tolist() == [1.0, 0.0, 0.5, 0.0]
    for wrong in (torch.zeros(5), torch.tensor([0.0, 1.1, 0.0]), torch.full((3,), torch.nan)):
        with pytest.raises(AssertionError):
            table.set(wrong)


def test_what_cannot_be_boosted_is_said(folder):
    own = {**PLAIN, "randaugment": {"prob": 0.3}}
    with pytest.raises(UserError, match=r"\[1\].randaugment.prob is 0.3, and the method sets"):
        make(folder, blocks=(PLAIN, own))
    data = make(folder, None)
    data.training.cfg = dataclasses.replace(data.training.cfg, engine="dali")
    with pytest.raises(UserError, match=r"data.engine dali cannot augment each image"):
        data.boost_views(VARIANT_I)
