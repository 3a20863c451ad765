# SPDX-License-Identifier: MIT
"""A run that is killed at an epoch's end and again within one ends as the unbroken run."""

from functools import partial
from pathlib import Path

import pytest

from ltplugins.runs.metrics import read_metrics
from tests.kit.cases import cases_of, run_names
from tests.kit.hosts import NAMES
from tests.kit.runs import assert_resumes, load
from tests.kit.tiny import calm_config


@pytest.mark.parametrize("name", run_names())
def test_a_killed_run_ends_as_the_unbroken_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = partial(calm_config, tmp_path, name, max_epochs=3, log_every_n_steps=1)
    whole = assert_resumes(config, tmp_path, monkeypatch)
    state = load(whole / "checkpoints/last.ckpt")["state_dict"]
    metrics = read_metrics(whole / "metrics.csv")
    for case in cases_of(name):
        assert all(any(key.startswith(kept) for key in state) for kept in case.run.keeps)
        assert set(case.run.logs) <= set(metrics)
        loss = f"{case.run.loss}_epoch"
        # COLT's begins with the first OOD images.
        assert name in NAMES or len(metrics[loss][1]) >= 2
