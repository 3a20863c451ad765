# SPDX-License-Identifier: MIT
"""What a start says of the processes that load images."""

import logging

import pytest

from ltplugins.data.schema import DataConfig
from ltplugins.training.announce import _tell_workers


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
