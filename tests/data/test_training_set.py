# SPDX-License-Identifier: MIT
"""Training sets from code and from a config, and the sections that they take."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.engines.build import build_loader
from ltplugins.data.imbalance import ImbalanceConfig
from ltplugins.data.samplers.base import Shard
from ltplugins.data.schema import DataConfig, OODConfig, SamplerConfig, parse_data_config
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.training_set import TrainingSet

BLOCK = {"crop_size": 8, "num_crops": 2, "rrc": {"enabled": True}}


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (40, 8, 8, 3)).astype(np.uint8)


def epoch(training):
    return list(build_loader(training, Shard(seed=3), torch.device("cpu")))


def test_arrays_from_code_train_as_the_same_arrays_from_a_file(images, tmp_path):
    labels = np.arange(40) % 4
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    keys = {"engine": "batched", "num_workers": 0, "imbalance": ImbalanceConfig("exp", 10)}
    blocks = parse_augmentations([BLOCK])
    path = str(tmp_path / "set.npz")
    named = TrainingSet(
        DataConfig("custom", format="arrays", train_path=path, **keys), blocks, batch_size=4
    )
    given = TrainingSet(
        DataConfig("custom", **keys), blocks, batch_size=4, source=from_arrays(images, labels)
    )
    assert named.split.hash == given.split.hash
    assert given.class_counts.tolist() == [10, 4, 2, 1]
    batches, others = epoch(named), epoch(given)
    assert len(batches) == len(others) == 4
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch[0], other[0])
        assert all(torch.equal(v, w) for v, w in zip(batch[1], other[1], strict=True))


def test_what_does_not_fit_is_refused_when_the_set_is_made(images):
    def make(labels=None, batch_size=4, **keys):
        source = from_arrays(images, labels)
        blocks = parse_augmentations([BLOCK])
        return TrainingSet(DataConfig("custom", **keys), blocks, batch_size, source=source)

    with pytest.raises(UserError, match="fewer images than the batch: 40 training images"):
        make(batch_size=41)
    assert len(epoch(make(batch_size=41, drop_last=False))[0][0]) == 40
    assert make(batch_size=3, drop_last=False).batches_per_epoch(num_ood=1, world_size=1) == 14
    with pytest.raises(UserError, match="'class_aware' needs labels"):
        make(sampler=SamplerConfig("class_aware"))
    with pytest.raises(UserError, match="id_plus_ood draws from a pool"):
        make(sampler=SamplerConfig("id_plus_ood"))
    with pytest.raises(UserError, match="needs labels, and the source has none"):
        make(imbalance=ImbalanceConfig("exp", 10))


def test_the_blocks_of_a_data_section_have_types():
    cfg = parse_data_config(
        {
            "dataset": "fashion_pack",
            "imbalance": {"kind": "exp", "factor": 50},
            "sampler": {"name": "id_plus_ood"},
            "ood": {"dataset": "emoji_pack", "fraction": 0.5},
        }
    )
    assert cfg.imbalance == ImbalanceConfig("exp", 50.0)
    assert cfg.sampler == SamplerConfig("id_plus_ood")
    assert cfg.ood == OODConfig("emoji_pack", fraction=0.5)
    plain = parse_data_config({"dataset": "fashion_pack", "imbalance": None, "ood": None})
    assert (plain.imbalance, plain.ood) == (None, None)
    assert plain.sampler == SamplerConfig("shuffle", 0.0)


def test_a_bare_name_stands_for_a_sampler():
    given = parse_data_config({"dataset": "fashion_pack", "sampler": "class_aware"})
    block = {"dataset": "fashion_pack", "sampler": {"name": "class_aware", "gamma": 0.0}}
    assert given == parse_data_config(block)
    with pytest.raises(UserError, match=r"data.sampler: expected a block of keys, got 3"):
        parse_data_config({"dataset": "fashion_pack", "sampler": 3})
    with pytest.raises(UserError, match=r"ampler.*name: .*got 'shufle'. Did you mean 'shuffle'"):
        parse_data_config({"dataset": "fashion_pack", "sampler": "shufle"})


def test_a_bare_name_is_no_imbalance():
    with pytest.raises(UserError, match=r"data.imbalance: expected a block of keys or null"):
        parse_data_config({"dataset": "fashion_pack", "imbalance": "exp"})


def test_a_loader_needs_no_lightning():
    """Evaluation, benchmarks and notebooks read images without a trainer."""
    code = (
        "import sys, ltplugins.data.engines.build, ltplugins.config.data\n"
        "sys.exit(sorted(m for m in sys.modules if m.startswith('lightning'))[:1] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
