# SPDX-License-Identifier: MIT
"""Loaders: true indexes, the same batches whatever makes them, a place to go on from."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.engines.batched import RawLoader
from ltplugins.data.samplers.base import count_batches
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.sources.files import image_folder
from tests.kit import data as kit
from tests.kit.dali import DALI

SIZE = 8
BLOCKS = [
    {
        "rrc": {"enabled": True, "crop_min_scale": 0.5},
        "color_jitter": {"prob": 0.8, "brightness": 0.4, "hue": 0.1},
        "horizontal_flip": {"prob": 0.5},
        "gaussian_blur": {"prob": 0.5},
        "crop_size": SIZE,
        "num_crops": 2,
    }
]
PLAIN = [{"crop_size": SIZE, "num_crops": 2, "mean": [0.0] * 3, "std": [1.0] * 3}]
ENGINES = ["workers", "batched", DALI]


def array_source(count=23):
    """Image i has the value 10 i everywhere, class i mod 3."""
    images = np.full((count, SIZE, SIZE, 3), 0, dtype=np.uint8)
    images += (np.arange(count, dtype=np.uint8) * 10)[:, None, None, None]
    return from_arrays(images, np.arange(count) % 3)


@pytest.fixture
def folder(tmp_path):
    for i in range(12):
        path = tmp_path / str(i % 3) / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (SIZE + i, SIZE), (20 * i,) * 3).save(path)
    return tmp_path


def loader_of(source, indices=None, *, blocks=BLOCKS, sampler="shuffle", **kwargs):
    ood = array_source(2) if sampler == "id_plus_ood" else None
    return kit.loader_of(source, blocks, indices=indices, sampler=sampler, ood=ood, **kwargs)


def epoch_of(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch[0], other[0])
        assert torch.equal(batch[2], other[2])
        for view, expected in zip(batch[1], other[1], strict=True):
            assert torch.allclose(view, expected, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_indexes_images_and_targets_belong_together(engine):
    subset = [20, 3, 7, 15, 0, 11, 9]
    source = array_source()
    loader = loader_of(source, subset, blocks=PLAIN, engine=engine, drop_last=False)
    assert (len(loader), len(loader.dataset)) == (2, 7)
    batches = list(loader)
    assert sorted(torch.cat([b[0] for b in batches]).tolist()) == list(range(7))
    for indexes, views, targets in batches:
        assert indexes.dtype == targets.dtype == torch.int64
        assert len(views) == 2
        for view in views:
            assert view.dtype == torch.float32
            assert view.shape == (len(indexes), 3, SIZE, SIZE)
            values = (view.mean((1, 2, 3)) * 255).round().long()
            # The true index is the place in the subset, not in the source.
            assert values.tolist() == [10 * subset[i] for i in indexes]
        assert targets.tolist() == [subset[i] % 3 for i in indexes]


@pytest.mark.parametrize("engine", ["batched", DALI])
@pytest.mark.parametrize(
    "sampler", ["shuffle", "class_aware", "two_branch", "paired", "id_plus_ood"]
)
def test_engines_give_the_same_indexes_and_without_augmentation_the_same_images(sampler, engine):
    batches = [
        epoch_of(loader_of(array_source(), blocks=PLAIN, sampler=sampler, engine=e), 2)
        for e in ("workers", engine)
    ]
    assert_same(*batches)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_branch_puts_the_class_aware_draws_into_the_second_half(engine):
    loader = loader_of(array_source(), sampler="two_branch", engine=engine, batch_size=6)
    loader.sampler.set_epoch(1)
    pairs = loader.sampler.positions().reshape(-1, 2)
    for number, (indexes, _, targets) in enumerate(epoch_of(loader, 1)):
        own = pairs[3 * number : 3 * number + 3]
        assert indexes.tolist() == [*own[:, 0], *own[:, 1]]
        assert targets.tolist() == [int(i) % 3 for i in indexes]
    # Three ranks with a pair each see what one process sees with three, each half in its place.
    options = {"sampler": "two_branch", "engine": engine}
    whole = next(iter(loader_of(array_source(), batch_size=6, **options)))
    parts = [
        next(iter(loader_of(array_source(), batch_size=2, rank=r, world=3, **options)))
        for r in range(3)
    ]
    joined = torch.stack([part[0] for part in parts])  # (3, 2)
    assert torch.equal(whole[0], joined.T.reshape(-1))


@pytest.mark.parametrize("engine", ENGINES)
def test_views_change_with_epoch_seed_and_draw(engine):
    source = from_arrays(np.tile(gradient(), (8, 1, 1, 1)), np.zeros(8, dtype=int))
    loader = loader_of(source, engine=engine)
    first = torch.cat([b[1][0] for b in epoch_of(loader)])
    assert len(torch.unique(first.flatten(1), dim=0)) == 8  # one picture, eight views of it
    again = torch.cat([b[1][0] for b in epoch_of(loader)])
    other = torch.cat([b[1][0] for b in epoch_of(loader, 1)])
    reseeded = torch.cat([b[1][0] for b in epoch_of(loader_of(source, engine=engine, seed=1))])
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)
    assert not torch.allclose(first, reseeded, atol=1e-2)


def gradient():
    ramp = np.linspace(0, 250, SIZE * SIZE * 3).reshape(1, SIZE, SIZE, 3)
    return ramp.astype(np.uint8)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tail_image_drawn_twice_gets_two_views(engine):
    images = np.concatenate([np.zeros((11, SIZE, SIZE, 3), np.uint8), gradient()])
    source = from_arrays(images, np.array([0] * 11 + [1]))
    loader = loader_of(source, sampler="class_aware", engine=engine, batch_size=12)
    ((indexes, views, _),) = list(loader)
    twins = views[0][indexes == 11]
    assert len(twins) > 2
    assert len(torch.unique(twins.flatten(1), dim=0)) == len(twins)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("files", [False, True])
def test_the_number_of_workers_changes_nothing(engine, files, folder):
    source = image_folder(folder) if files else array_source()
    alone = loader_of(source, engine=engine)
    several = loader_of(source, engine=engine, num_workers=2)
    for epoch in (0, 1):  # the workers live on: the second epoch must reach them
        assert_same(epoch_of(alone, epoch), epoch_of(several, epoch))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_main_process_keeps_its_random_numbers(engine, folder):
    import random

    state, plain = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()[1].copy()
    for workers in (0, 1):
        epoch_of(loader_of(image_folder(folder), engine=engine, num_workers=workers))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == plain
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_inside_an_epoch_equals_the_unbroken_run(engine, workers):
    unbroken = loader_of(array_source(), engine=engine)
    expected = epoch_of(unbroken, 3)
    loader = loader_of(array_source(), engine=engine, num_workers=workers)
    loader.sampler.set_epoch(3)
    started = iter(loader)
    head = [next(started) for _ in range(2)]
    state = loader.state_dict()
    assert state == {"epoch": 3, "batches": 2}
    assert_same(head, expected[:2])

    later = loader_of(array_source(), engine=engine, num_workers=workers)
    later.load_state_dict(state)
    assert later.state_dict() == state
    assert_same(list(later), expected[2:])
    assert later.state_dict() == {"epoch": 4, "batches": 0}
    assert_same(epoch_of(later, 3), expected)  # the skip counts once


def test_a_loaded_state_gives_way_to_another_epoch():
    loader = loader_of(array_source())
    loader.load_state_dict({"epoch": 1, "batches": 3})
    assert_same(epoch_of(loader, 2), epoch_of(loader_of(array_source()), 2))


def test_skipped_batches_are_not_decoded(folder):
    source = image_folder(folder)
    loaded = []
    load = source.load
    source.load = lambda i: loaded.append(i) or load(i)
    loader = loader_of(source)
    loader.load_state_dict({"epoch": 0, "batches": 2})
    (batch,) = list(loader)
    assert sorted(loaded) == sorted(batch[0].tolist())


def test_the_epoch_is_read_at_the_first_batch():
    """Lightning asks for the iterator first and sets the epoch then."""
    loader = loader_of(array_source())
    batches = iter(loader)
    loader.sampler.set_epoch(5)
    assert_same(list(batches), epoch_of(loader_of(array_source()), 5))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_an_epoch_without_duplicates(engine, world):
    source = array_source()
    ranks = [
        loader_of(source, engine=engine, rank=r, world=world, batch_size=2) for r in range(world)
    ]
    epochs = [epoch_of(loader) for loader in ranks]
    assert len({len(e) for e in epochs}) == 1  # or a rank would wait for ever
    seen = torch.cat([batch[0] for e in epochs for batch in e])
    assert len(torch.unique(seen)) == len(seen) == 23 // world // 2 * 2 * world


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("world", "batch", "sizes"), [(2, 3, [3, 3, 3, 3]), (3, 5, [5, 3])])
def test_without_drop_last_every_image_comes(engine, world, batch, sizes):
    """On the ranks that have one more, in their last batch; the others' is shorter by it."""
    source, options = array_source(), {"engine": engine, "batch_size": batch, "drop_last": False}
    ranks = [loader_of(source, rank=r, world=world, **options) for r in range(world)]
    epochs = [epoch_of(loader, 1) for loader in ranks]
    assert [len(loader) for loader in ranks] == [len(e) for e in epochs] == [len(sizes)] * world
    assert [len(b[0]) for b in epochs[0]] == sizes
    assert [len(b[0]) for b in epochs[-1]] == [*sizes[:-1], sizes[-1] - 1]
    seen = torch.cat([b[0] for e in epochs for b in e])
    assert sorted(seen.tolist()) == list(range(23))
    ranks[0].load_state_dict({"epoch": 1, "batches": len(sizes) - 1})
    assert_same(list(ranks[0]), epochs[0][-1:])


@pytest.mark.parametrize(
    ("total", "world", "batch", "whole", "all_of_it"),
    [
        (24, 2, 4, 3, 3),
        (23, 1, 4, 5, 6),
        (25, 1, 4, 6, 6),
        (23, 2, 5, 2, 2),
        (27, 2, 5, 2, 3),
        (5, 2, 8, 0, 1),
    ],
)
def test_every_rank_counts_as_many_batches(total, world, batch, whole, all_of_it):
    """A last batch of one image is left out: a BatchNorm has nothing to go by."""
    counts = [count_batches(total, world, batch, drop_last) for drop_last in (True, False)]
    assert counts == [whole, all_of_it]


@pytest.mark.parametrize("engine", ["workers", DALI])
def test_two_ranks_make_the_views_of_one_process_with_the_joined_batch(engine):
    source = array_source()
    whole = epoch_of(loader_of(source, engine=engine, batch_size=8))
    parts = [epoch_of(loader_of(source, engine=engine, rank=r, world=2)) for r in range(2)]
    for joined, first, second in zip(whole, *parts, strict=True):
        for rank, part in enumerate((first, second)):
            assert torch.equal(joined[0][rank::2], part[0])
            assert torch.equal(joined[1][1][rank::2], part[1][1])


@pytest.mark.parametrize("files", [False, True])
def test_raw_batches_finish_to_what_the_plain_loader_gives(files, folder):
    source = image_folder(folder) if files else array_source()
    raw = loader_of(source, engine="batched", device="cuda")
    assert isinstance(raw, RawLoader)
    batches = list(raw)
    kinds = batches[0].images if files else [batches[0].images]
    assert {image.dtype for image in kinds} == {torch.uint8}
    finished = [raw.finish(batch, "cpu") for batch in batches]
    assert_same(finished, list(loader_of(source, engine="batched")))


@pytest.fixture
def damaged(folder):
    for name in ("0/03.png", "1/07.png"):
        path = folder / name
        path.write_bytes(path.read_bytes()[:50])
    return folder


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named(engine, workers, damaged):
    loader = loader_of(image_folder(damaged), engine=engine, num_workers=workers)
    with pytest.raises(
        UserError, match=r"corrupt image: .*(03|07).png \(.*data.on_corrupt: skip"
    ) as e:
        list(loader)
    assert "Traceback" not in str(e.value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_replaced_counted_and_warned_of_once(engine, workers, damaged, caplog):
    source = image_folder(damaged)
    bad = {i for i, p in enumerate(source.paths) if p.endswith(("03.png", "07.png"))}
    loader = loader_of(source, blocks=PLAIN, engine=engine, num_workers=workers, on_corrupt="skip")
    with caplog.at_level(logging.WARNING, "ltplugins.data.engines.loader"):
        batches = epoch_of(loader, 0) + epoch_of(loader, 1)
    for indexes, views, targets in batches:
        assert len(indexes) == 4
        assert not bad & set(indexes.tolist())
        values = (views[0].mean((1, 2, 3)) * 255).round().long().tolist()
        names = [int(source.paths[i][-6:-4]) for i in indexes]
        assert values == [20 * n for n in names]  # index and image are of one file
        assert targets.tolist() == source.targets[indexes].tolist()
    assert sorted(loader.corrupt.values()) == [2, 2]
    assert sum(r.name == "ltplugins.data.engines.loader" for r in caplog.records) == 2


def test_a_batch_of_corrupt_images_only_is_an_error(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"all 4 images of a batch are corrupt, the first: .*png"):
        list(loader_of(image_folder(folder), on_corrupt="skip"))


def test_loader_errors():
    with pytest.raises(
        UserError, match=r"engine: expected one of .*got 'bached'. Did you mean 'batched'"
    ):
        loader_of(array_source(), engine="bached")
    with pytest.raises(UserError, match=r"fewer images than the batch: 23 .* on 1 process") as e:
        loader_of(array_source(), batch_size=24)
    assert "Set optimizer.batch_size to 23 or less" in str(e.value)
    with pytest.raises(UserError, match=r"23 training images on 2 process\(es\) give 11 each"):
        loader_of(array_source(), batch_size=12, world=2)
