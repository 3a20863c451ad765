# SPDX-License-Identifier: MIT
"""What worker processes get can be sent to ones that are spawned, as on macOS and Windows."""

import pickle

import numpy as np
import pytest
import torch

from ltplugins.data.augment.plain import EvalDataset, eval_transform
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.engines.build import build_loader
from ltplugins.data.engines.draws import Draw
from ltplugins.data.samplers.base import Shard
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.training_set import TrainingSet

STEPS = {
    "color_jitter": {"prob": 1.0, "brightness": 0.4, "hue": 0.1},
    "gaussian_blur": {"prob": 1.0},
    "randaugment": {"prob": 1.0, "num_ops": 2, "ops": "bcl"},
}


@pytest.mark.parametrize("engine", ["workers", "batched"])
def test_a_training_set_arrives_as_it_was(engine: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    source = from_arrays(images, np.arange(6) % 2)
    blocks = parse_augmentations([{"crop_size": 12, "num_crops": 2, **STEPS}])
    cfg = DataConfig(train_path="x", engine=engine, num_workers=0)  # type: ignore[arg-type]
    loader = build_loader(TrainingSet(cfg, blocks, 3, source=source), Shard(), torch.device("cpu"))
    dataset = loader.dataset
    sent = pickle.loads(pickle.dumps(dataset))
    draws = [Draw(0, number, number) for number in range(3)]
    for a, b in zip(dataset.__getitems__(draws).views, sent.__getitems__(draws).views, strict=True):
        assert torch.equal(a, b)


def test_test_images_arrive_as_they_were() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    source = from_arrays(images, np.arange(2))
    dataset = EvalDataset(source, eval_transform(source.record, 12))
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1][0], dataset[1][0])
