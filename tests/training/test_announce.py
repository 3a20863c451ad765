# SPDX-License-Identifier: MIT
"""What a start says of the processes that load images, and of the stem."""

import logging

import pytest

from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.records import custom_record
from ltplugins.training.announce import _tell_stem, _tell_workers


@pytest.mark.parametrize(
    ("engine", "workers", "told"),
    [("workers", 4, True), ("workers", 2, False), ("batched", 4, False)],
)
def test_more_processes_than_processors_are_told_in_a_line(
    engine: str, workers: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data = DataConfig(dataset="custom", train_path="x", engine=engine, num_workers=workers)
    with caplog.at_level(logging.INFO, logger="ltplugins"):
        _tell_workers(data, 2)
    assert ("data.num_workers=4, and here are 2 processors" in caplog.text) == told


@pytest.mark.parametrize(
    ("small", "crop", "warned"), [(True, 224, True), (True, 64, False), (False, 224, False)]
)
def test_a_small_stem_on_large_crops_is_warned_of(
    small: bool, crop: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Small pictures under ``augmentations=imagenet``: a ResNet-50 wants 1.3 GB an image."""
    with caplog.at_level(logging.INFO, logger="ltplugins"):
        _tell_stem(small, custom_record(4, 44), crop)
    assert "images of 44 pixels (the median of a sample)" in caplog.text
    assert ("Set backbone.small_stem=false" in caplog.text) == warned
