# SPDX-License-Identifier: MIT
"""Which images are kept of an evaluation, and that what is read is what was written."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ltplugins.config.resolve import resolve
from ltplugins.eval.banks import Features
from ltplugins.eval.gallery import (
    Gallery,
    chosen_of_pool,
    nearest,
    pick_queries,
    read_gallery,
    thumbnails,
    write_gallery,
)
from ltplugins.eval.keep import _add_pool
from tests.kit.tiny import tiny_config


def test_queries_are_of_the_rarest_classes() -> None:
    targets = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 3, 3])
    counts = [50, 40, 2, 1, 30, 20]  # the rarest third: 3, then 2
    assert pick_queries(targets, counts).tolist() == [3, 9, 12, 13, 2, 8]
    assert pick_queries(targets, counts, count=2).tolist() == [3, 2]
    # A class without test images has none to ask for.
    assert pick_queries(targets[targets != 3], counts, count=3).tolist() == [2, 7]
    assert pick_queries(np.array([0, 1]), counts).tolist() == []


def test_neighbours_are_by_cosine_and_the_nearest_first() -> None:
    bank = Features(torch.tensor([[0.0, 9.0], [1.0, 1.0], [5.0, 0.1]]), torch.tensor([7, 8, 9]))
    places, labels = nearest(bank, torch.tensor([[0.1, 0.0]]), 2)
    assert (places.tolist(), labels.tolist()) == ([[2, 1]], [[9, 8]])
    assert nearest(bank, torch.tensor([[0.1, 0.0]]), 5)[0].shape == (1, 3)


def test_thumbnails_are_small_squares_of_the_middle() -> None:
    wide = np.zeros((80, 240, 3), dtype=np.uint8)
    wide[:, 80:160] = 200
    found = thumbnails([wide, wide[:, ::-1]].__getitem__, [0, 1])
    assert found.shape == (2, 40, 40, 3) and found.dtype == np.uint8
    assert (found[:, :, 2:-2] == 200).all() and found.min() > 150  # edges are smoothed
    small = np.full((6, 6, 3), 9, dtype=np.uint8)
    assert thumbnails([small].__getitem__, [0]).shape == (1, 6, 6, 3)
    assert len(thumbnails([].__getitem__, [])) == 0


def test_of_each_cluster_its_nearest_are_shown() -> None:
    positions, sizes = np.arange(100, 121), np.array([9, 0, 12])
    shown, clusters, kept = chosen_of_pool(positions, sizes)
    assert shown.tolist() == [*range(100, 106), *range(109, 115)]
    assert clusters.tolist() == [0] * 6 + [2] * 6 and kept.tolist() == [9, 0, 12]
    shown, clusters, kept = chosen_of_pool(positions, None)
    assert (len(shown), set(clusters.tolist()), kept.tolist()) == (6, {0}, [21])


def test_a_gallery_is_read_as_it_was_written_and_only_of_its_features(tmp_path: Path) -> None:
    path = tmp_path / "gallery.npz"
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    write_gallery(path, Gallery({"test": "k"}, np.array([4, 9]), np.array([1, 0]), images))
    found = read_gallery(path, "k")
    assert found is not None
    assert (found.places.tolist(), found.targets.tolist()) == ([4, 9], [1, 0])
    assert np.array_equal(found.images, images) and not len(found.preds)
    assert read_gallery(path, "other") is None
    assert read_gallery(tmp_path / "nothing", "k") is None
    path.write_bytes(path.read_bytes()[:-30])
    assert read_gallery(path, "k") is None
    np.savez(path, about=np.asarray('{"form": 99, "test": "k"}'))
    assert read_gallery(path, "k") is None


def test_the_pools_images_are_those_that_the_checkpoint_names(tmp_path: Path) -> None:
    cfg = resolve(tiny_config(tmp_path, "colt_simclr"))
    pool = np.load(tmp_path / "ood.npz")["images"]
    state: dict[str, Any] = {
        "ood_subset": torch.tensor([5, 3, 20]),
        "ood_sizes": torch.tensor([2, 1]),
    }
    found = Gallery({}, np.array([0]), np.array([0]), pool[:1])
    extract: Any = SimpleNamespace(
        run=SimpleNamespace(data_state=state), parts=SimpleNamespace(data=cfg.data)
    )
    _add_pool(found, extract)
    assert np.array_equal(found.pool_images, pool[[5, 3, 20]])
    assert (found.pool_clusters.tolist(), found.pool_sizes.tolist()) == ([0, 0, 1], [2, 1])
    (tmp_path / "ood.npz").unlink()  # moved since the training: the other pictures stay
    bare = Gallery({}, np.array([0]), np.array([0]), pool[:1])
    _add_pool(bare, extract)
    assert not len(bare.pool_images)
