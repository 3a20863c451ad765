# SPDX-License-Identifier: MIT
"""A disk that cannot take a run's checkpoints is found out before the run trains."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.training.disk import checkpoint_bytes, require_room
from tests.kit.tiny import tiny_config

MODEL = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.BatchNorm1d(1000))
MB = 1_000_000


def free(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=count))


def config(folder: Path, **changes: Any) -> RunConfig:
    return resolve(tiny_config(folder, "simclr", max_epochs=10, **changes))


def test_what_a_checkpoint_takes() -> None:
    weights = 4 * 1000 * 1000
    norm = 4 * 2 * 1000
    statistics = 4 * 2 * 1000 + 8
    assert checkpoint_bytes(MODEL, "sgd") == (
        weights + norm + statistics,
        2 * (weights + norm) + statistics,
    )
    assert checkpoint_bytes(MODEL, "adamw")[1] == 3 * (weights + norm) + statistics


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 3),
        ({"checkpoint__previous": False}, 2),
        ({"checkpoint__keep_prev": True}, 12),
        ({"checkpoint__keep_prev": True, "checkpoint__frequency": 4}, 5),
        ({"checkpoint__frequency": 10}, 1),
    ],
)
def test_a_disk_that_will_be_full_is_told(
    changes: dict[str, Any],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, one = config(tmp_path, **changes), checkpoint_bytes(MODEL, "sgd")[1]
    with caplog.at_level(logging.WARNING, "ltplugins"):
        free(monkeypatch, count * one)
        require_room(tmp_path, run, MODEL)
        assert not caplog.messages
        free(monkeypatch, count * one - 1)
        require_room(tmp_path, run, MODEL)
    (said,) = caplog.messages
    assert f"{count} checkpoints of 8.0 MB" in said
    assert ("checkpoint.keep_prev=false" in said) == bool(changes.get("checkpoint__keep_prev"))


def test_those_that_are_there_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with open(tmp_path / "last.ckpt", "wb") as file:
        file.truncate(20 * MB)
    free(monkeypatch, 5 * MB)
    require_room(tmp_path, config(tmp_path), MODEL)
    assert not caplog.messages


def test_a_disk_that_takes_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 4 * MB)
    with pytest.raises(UserError, match=r"room for a checkpoint of 8.0 MB .* with 4.0 MB free"):
        require_room(tmp_path, config(tmp_path), MODEL)
    require_room(tmp_path, config(tmp_path, checkpoint__enabled=False), MODEL)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    require_room(tmp_path / "made", config(tmp_path), MODEL)
    assert list((tmp_path / "made").iterdir()) == []
    (tmp_path / "checkpoints").write_text("no folder")
    with pytest.raises(
        UserError, match=r"expected a folder that can be written, got .*File exists"
    ):
        require_room(tmp_path / "checkpoints", config(tmp_path), MODEL)
