# SPDX-License-Identifier: MIT
"""The ``data`` block: what a set does not read is refused, and a path alone is a set of its own."""

from typing import Any

import numpy as np
import pytest

from ltplugins.core.errors import UserError
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.schema import DataConfig, parse_data_config
from ltplugins.data.sources.arrays import from_arrays
from ltplugins.data.training_set import TrainingSet


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (
            {"dataset": "fashion_pack", "train_path": "p"},
            r"data.train_path: expected null, for fash",
        ),
        ({"dataset": "fashion_pack", "val_path": "p"}, r"data.val_path: expected null"),
        ({"dataset": "fashion_pack", "format": "arrays"}, r"data.format: expected image_folder"),
        (
            {"dataset": "cifar10", "format": "file_list"},
            r"data.format: .*cifar10 has a form of its",
        ),
        (
            {"dataset": "cifar10", "probe_path": "p"},
            r"data.probe_path: .*read from the folder train",
        ),
        ({"train_path": "p", "root": "r"}, r"data.root: expected null, for it is of format: file_"),
        ({"dataset": "custom", "format": "arrays", "root": "r"}, r"and format is arrays"),
        ({"imbalance": {"kind": "exp"}}, r"data.dataset is missing.*or data.train_path"),
        ({"dataset": "cifar10", "imbalance": {"factor": 9}}, r"imbalance.kind is missing.*factor"),
        ({"dataset": "cifar10", "ood": {"dataset": None}}, r"data.ood names no pool.*emoji_pack"),
        (
            {"dataset": "cifar10", "ood": {"dataset": "emoji_pack", "train_path": "p"}},
            r"data.ood.train_path: expected null, for emoji_pack",
        ),
    ],
)
def test_what_nothing_would_read_is_refused(block: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        parse_data_config(block)


@pytest.mark.parametrize(
    "block",
    [
        {"dataset": "fashion_pack", "format": "image_folder", "val_path": None},  # as runs keep it
        {"dataset": "cifar10", "train_path": "d", "val_path": "v", "format": "image_folder"},
        {"dataset": "fashion_mnist", "train_path": "d"},
        {"train_path": "list.txt", "format": "file_list", "root": "r"},
        {"dataset": "imagenet", "train_path": "d", "val_path": "v", "format": "dali"},
        {"dataset": "cifar10", "ood": {"train_path": "p", "dataset": None}},
    ],
)
def test_what_is_read_is_accepted(block: dict[str, Any]) -> None:
    assert parse_data_config(block).dataset == block.get("dataset", "custom")


def test_a_path_alone_is_custom() -> None:
    assert parse_data_config({"train_path": "photos"}).dataset == "custom"
    cfg = parse_data_config({"train_path": "photos", "ood": {"train_path": "others"}})
    assert cfg.ood is not None and cfg.ood.dataset == "custom"


@pytest.mark.parametrize("colour", ["grey", "equal channels", "colour"])
def test_augmentations_of_grey_images_are_refused_for_colour(colour: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 3), dtype=np.uint8)
    if colour == "grey":
        images = images[..., 0]
    elif colour == "equal channels":
        images[..., 1:] = images[..., :1]
    source = from_arrays(images, np.arange(8) % 2)
    blocks = parse_augmentations([{"crop_size": 28, "num_crops": 2, "grey": True}])
    cfg = DataConfig(train_path="x")
    if colour != "colour":
        TrainingSet(cfg, blocks, 2, source=source)
        return
    with pytest.raises(
        UserError, match=r"augmentations\[0\].grey: .*in colour.*augmentations=small"
    ):
        TrainingSet(cfg, blocks, 2, source=source)
