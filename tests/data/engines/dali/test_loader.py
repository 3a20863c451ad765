# SPDX-License-Identifier: MIT
"""The ``dali`` engine: each of DALI's traps, on small JPEGs. What all engines share is tested in
test_data_engines.py, what its views look like in test_data_dali_views.py.
"""

import gc
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ltplugins.core.errors import UserError
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.sources.files import file_list, image_folder
from ltplugins.data.sources.joined import JoinedSource
from tests.kit import data as kit
from tests.kit.dali import DALI_MARKS, smooth_image, write_jpegs

pytestmark = list(DALI_MARKS)
SIZE = 16
PLAIN = {"crop_size": SIZE, "num_crops": 1, "mean": [0.0] * 3, "std": [1.0] * 3}
FLIPPED = {**PLAIN, "rrc": {"enabled": True}, "horizontal_flip": {"prob": 0.5}, "num_crops": 2}


def loader_of(source, *, blocks=(PLAIN,), engine="dali", **more):
    return kit.loader_of(source, blocks, engine=engine, **{"drop_last": False, **more})


def epoch_of(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def seen(batches):
    return torch.cat([batch[0] for batch in batches]).tolist()


def same(batches, others):
    return len(batches) == len(others) and all(
        torch.equal(a[0], b[0])
        and torch.equal(a[2], b[2])
        and all(torch.equal(v, w) for v, w in zip(a[1], b[1], strict=True))
        for a, b in zip(batches, others, strict=True)
    )


def truncate(path):
    with open(path, "r+b") as file:
        data = file.read()
        file.truncate(len(data) - 100)


@pytest.fixture
def jpegs(tmp_path):
    return image_folder(write_jpegs(tmp_path / "jpegs"))


def as_views(source, position):
    """The image at a position as the plain block shows it, by the engine ``workers``."""
    loader = loader_of(source, engine="workers", batch_size=1, indices=np.array([position]))
    ((_, (view,), _),) = list(loader)
    return view[0]


# --- traps of solo-learn's loader --------------------------------------------------------------


def test_indexes_are_true_and_not_0_to_b(jpegs):
    subset = np.array([14, 2, 9, 5, 0, 11, 7, 3, 12])
    for indexes, (view,), targets in epoch_of(loader_of(jpegs, indices=subset)):
        assert len(indexes) == 1 or indexes.tolist() != list(range(len(indexes)))
        for i, image, target in zip(indexes.tolist(), view, targets, strict=True):
            assert target == jpegs.targets[subset[i]]
            assert (image - as_views(jpegs, subset[i])).abs().mean() < 2 / 255
            other = as_views(jpegs, subset[i - 1])
            assert (image - other).abs().mean() > 10 / 255


def test_no_gpu_is_asked_for_on_a_cpu(jpegs):
    """solo-learn passes device_id 0, with which DALI opens the CUDA driver and fails."""
    loader = loader_of(jpegs)
    next(iter(loader))
    assert loader._pipeline.device_id is None


def test_the_seed_is_the_runs(jpegs):
    one, two, other = (
        epoch_of(loader_of(jpegs, blocks=[FLIPPED], seed=seed)) for seed in (3, 3, 4)
    )
    assert same(one, two)
    views = []
    for batches in (one, other):
        back = torch.tensor(seen(batches)).argsort()
        views.append(torch.cat([batch[1][0] for batch in batches])[back])
    changed = (views[0] - views[1]).abs().amax((1, 2, 3)) > 0.1  # image by image
    assert changed.float().mean() > 0.8


@pytest.mark.parametrize(("batch_size", "last"), [(4, 3), (6, 3), (15, 15), (40, 15)])
def test_every_sample_once_an_epoch_and_the_last_batch_is_short(jpegs, batch_size, last):
    loader = loader_of(jpegs, batch_size=batch_size)
    for epoch in range(3):
        batches = epoch_of(loader, epoch)
        assert len(batches) == len(loader)
        assert len(batches[-1][0]) == len(batches[-1][1][0]) == last
        assert sorted(seen(batches)) == list(range(15))


def test_drop_last_drops_only_the_last(jpegs):
    loader = loader_of(jpegs, drop_last=True)
    whole = epoch_of(loader_of(jpegs))
    assert same(epoch_of(loader), whole[:3])


# --- traps of DALI itself ------------------------------------------------------------------


def test_nothing_of_an_epoch_is_replayed_in_the_next(jpegs):
    """iter(source) at build and at StopIteration must not fix the next epoch's indexes."""
    loader = loader_of(jpegs, blocks=[FLIPPED])
    fresh = [epoch_of(loader_of(jpegs, blocks=[FLIPPED]), epoch) for epoch in range(3)]
    batches = iter(loader)
    loader.sampler.set_epoch(2)  # after iter(), as Lightning does
    assert same(list(batches), fresh[2])
    for epoch in (0, 1, 1, 0):
        assert same(epoch_of(loader, epoch), fresh[epoch])
    orders = {tuple(seen(epoch)) for epoch in fresh}
    assert len(orders) == 3


@pytest.mark.parametrize("left_after", [1, 2, 3])
def test_an_epoch_left_early_does_not_leak_into_the_next(jpegs, left_after):
    loader = loader_of(jpegs, blocks=[FLIPPED])
    batches = iter(loader)
    left = [next(batches) for _ in range(left_after)]
    assert same(left, epoch_of(loader_of(jpegs, blocks=[FLIPPED]))[:left_after])
    assert same(epoch_of(loader, 1), epoch_of(loader_of(jpegs, blocks=[FLIPPED]), 1))
    with pytest.raises(RuntimeError, match="another iteration over this loader has begun"):
        next(batches)


def test_a_damaged_image_that_nobody_reached_is_no_error(tmp_path):
    source = image_folder(write_jpegs(tmp_path))
    loader = loader_of(source, batch_size=2, blocks=[FLIPPED])
    order = loader.sampler.positions()
    for place in (5, 9):  # batches 2 and 4: one DALI has, one it has not
        truncate(source.paths[order[place]])
    first = next(iter(loader))
    assert seen([first]) == order[:2].tolist()
    loader.sampler.set_epoch(1)
    with pytest.raises(UserError, match=r"corrupt image: .*jpg \(.*data.on_corrupt: skip"):
        list(loader)


def test_a_changing_subset_is_the_one_that_is_read(jpegs, tmp_path):
    """A reader's file list is fixed after the build; the sampler's indices are not."""
    pool = image_folder(write_jpegs(tmp_path / "pool", (6,), seed=9))
    joined = JoinedSource(jpegs, pool)
    loader = loader_of(jpegs, sampler="id_plus_ood", ood=pool)
    assert sorted(seen(epoch_of(loader, 0))) == list(range(15))
    for epoch, subset in enumerate(([0, 1, 4], [0, 2, 3, 5], []), start=1):
        loader.sampler.set_ood(subset)
        batches = epoch_of(loader, epoch)
        assert len(batches) == len(loader)
        assert sorted(seen(batches)) == [*range(15), *(15 + j for j in subset)]
        for indexes, (view,), targets in batches:
            for i, image, target in zip(indexes.tolist(), view, targets, strict=True):
                assert target == joined.targets[i]
                assert (image - as_views(joined, i)).abs().mean() < 2 / 255


@pytest.mark.parametrize("sampler", ["class_aware", "paired"])
def test_samplers_that_repeat_images(jpegs, sampler):
    loader = loader_of(jpegs, sampler=sampler, blocks=[FLIPPED])
    batches = epoch_of(loader, 1)
    assert seen(batches) == loader.sampler.positions().tolist()
    repeated = max(seen(batches), key=seen(batches).count)
    views = torch.cat([b[1][0][b[0] == repeated] for b in batches])
    assert len(torch.unique(views.flatten(1), dim=0)) == len(views) > 1


# --- files -----------------------------------------------------------------------------


def test_decoded_as_pil_decodes(tmp_path):
    """Half-resolution colours, EXIF turns, grey, CMYK, alpha, palettes, other formats."""
    picture = smooth_image(np.random.default_rng(0), SIZE, SIZE)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    (tmp_path / "a").mkdir()
    for name, (image, options) in {
        "420.jpg": (picture, {"subsampling": 2}),
        "444.jpg": (picture, {"subsampling": 0}),
        "turned.jpg": (picture, {"exif": exif}),
        "progressive.jpg": (picture, {"progressive": True}),
        "grey.jpg": (picture.convert("L"), {}),
        "cmyk.jpg": (picture.convert("CMYK"), {}),
        "alpha.png": (picture.convert("RGBA"), {}),
        "palette.png": (picture.quantize(16), {}),
        "x.webp": (picture, {}),
        "x.bmp": (picture, {}),
        "x.ppm": (picture, {}),
        "x.tif": (picture, {}),
    }.items():
        image.save(tmp_path / "a" / name, **options)
    source = image_folder(tmp_path)
    batches = [epoch_of(loader_of(source, engine=e)) for e in ("dali", "workers")]
    for found, expected in zip(*batches, strict=True):
        assert torch.equal(found[0], expected[0])
        assert torch.allclose(found[1][0], expected[1][0], atol=1e-6)


def test_file_list_and_a_pool_of_arrays(jpegs, tmp_path):
    lines = [f"{path} {t}" for path, t in zip(jpegs.paths, jpegs.targets, strict=True)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    listed = file_list(tmp_path / "list.txt")
    assert same(epoch_of(loader_of(listed)), epoch_of(loader_of(jpegs)))
    arrays = from_arrays(np.full((3, 20, 30), 200, dtype=np.uint8), None)
    loader = loader_of(listed, sampler="id_plus_ood", ood=arrays)
    loader.sampler.set_ood(np.array([2]))
    (grey,) = [b[1][0][b[0] == 17] for b in epoch_of(loader) if 17 in b[0]]
    assert torch.allclose(grey, torch.full_like(grey, 200 / 255))


def test_what_only_pil_can_decode_is_left_to_pil(tmp_path, caplog):
    source = image_folder(write_jpegs(tmp_path))
    Image.open(source.paths[3]).save(tmp_path / "x.png")
    # PIL looks at the bytes, not at the name, and does not need the last of them.
    Path(source.paths[3]).write_bytes((tmp_path / "x.png").read_bytes()[:-4])
    batches = [epoch_of(loader_of(source, engine=e)) for e in ("dali", "workers")]
    assert seen(batches[0]) == seen(batches[1])
    assert "DALI cannot decode training image 3" in caplog.text
    for found, expected in zip(*batches, strict=True):
        assert (found[1][0] - expected[1][0]).abs().mean() < 2 / 255


@pytest.mark.parametrize("damage", ["cut", "header", "gone"])
def test_damaged_jpegs_are_replaced_and_counted(tmp_path, damage, caplog):
    source = image_folder(write_jpegs(tmp_path))
    path = tmp_path / "class0/02.jpg"
    if damage == "cut":
        truncate(path)
    elif damage == "header":
        path.write_bytes(b"no image")
    else:
        path.unlink()
    loader = loader_of(source, on_corrupt="skip", blocks=[FLIPPED])
    expected = loader_of(source, on_corrupt="skip", blocks=[FLIPPED], engine="workers")
    for epoch in range(2):
        batches = epoch_of(loader, epoch)
        assert 2 not in seen(batches)
        assert seen(batches) == seen(epoch_of(expected, epoch))
    assert loader.corrupt == expected.corrupt == {str(path): 2}


def test_a_forked_worker_does_not_free_the_parents_pipelines(tmp_path):
    """Its destructor would wait for threads that a child does not have."""
    source = image_folder(write_jpegs(tmp_path / "jpegs"))
    gc.disable()  # the loader below is to be garbage that nobody has collected yet
    try:
        loader = loader_of(source)
        loader.itself = loader
        epoch_of(loader)
        del loader
        child = multiprocessing.get_context("fork").Process(target=gc.collect, daemon=True)
        child.start()
        child.join(timeout=600)
        ended = child.exitcode
        child.kill()
    finally:
        gc.enable()
    assert ended == 0
