# SPDX-License-Identifier: MIT
"""What is held out: of every class, of training images alone, by the seed."""

import numpy as np
import pytest

from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.downstream.images import features_of, split_images, whole_set
from tests.kit.tiny import tiny_config, write_arrays


def images(folder, counts=(20, 10, 2, 1), fraction=0.2, seed=0, world_size=1, **changes):
    write_arrays(folder / "train.npz", counts)
    write_arrays(folder / "test.npz", (5,) * len(counts), seed=1)
    cfg = resolve(tiny_config(folder, "simclr", seed=seed, **changes))
    return split_images(cfg, whole_set(cfg), fraction, world_size), cfg


def test_a_share_of_each_class_is_held_out(tmp_path):
    found, _ = images(tmp_path)
    assert found.fit.class_counts.tolist() == [16, 8, 1, 1]
    assert np.bincount(found.held_out.targets, minlength=4).tolist() == [4, 2, 1, 0]
    assert found.whole.class_counts.tolist() == [20, 10, 2, 1]
    both = np.concatenate([found.fit.images.images[found.fit.indices], found.held_out.images])
    whole = found.whole.source.images
    assert sorted(x.tobytes() for x in both) == sorted(x.tobytes() for x in whole)
    assert "without 7 held-out images" in found.fit.split.description


def test_the_seed_chooses(tmp_path):
    hashes = [images(tmp_path, seed=seed)[0].fit.split.hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_cannot_be_split_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"validation: no class of .* has a second image"):
        images(tmp_path, counts=(1, 1, 1))
    with pytest.raises(UserError, match="two classes or more, got one"):
        images(tmp_path, counts=(9,))
    with pytest.raises(
        UserError, match=r"there are 26 .* 4 process.* 8 each\. Set batch_size to 6"
    ):
        images(tmp_path, world_size=4)
    with pytest.raises(UserError, match="learns from labels, and some training images have none"):
        images(tmp_path, data__no_labels=True)


def test_features_are_of_all_images_in_order(tmp_path):
    from torch import nn

    found, cfg = images(tmp_path)
    feats, targets = features_of(nn.Flatten(), found.held_out, cfg, "cpu")
    assert targets.tolist() == found.held_out.targets.tolist() and feats.shape == (7, 3 * 16 * 16)
    one, _ = features_of(nn.Flatten(), found.held_out.subset(np.array([3])), cfg, "cpu")
    assert np.array_equal(one[0], feats[3])
