# SPDX-License-Identifier: MIT
"""Every method trains on every engine, with indexes that tell the images."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from tests.kit.cases import cases_of, over_simclr
from tests.kit.dali import DALI
from tests.kit.runs import build, fit
from tests.kit.tiny import calm_config

COUNTS = (24, 12, 6)
NAMES = ["simclr", *over_simclr()]


class Record(pl.Callback):
    """The labels of each index that was drawn, and the losses."""

    def __init__(self) -> None:
        self.labels: dict[int, int] = {}
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, _: int):
        self.labels.update(zip(batch[0].tolist(), batch[2].tolist(), strict=True))
        self.losses.append(float(outputs["loss"]))


@pytest.mark.parametrize("engine", ["workers", "batched", DALI])
@pytest.mark.parametrize("name", NAMES)
def test_every_engine(name: str, engine: str, tmp_path: Path) -> None:
    if not all(engine in case.run.engines for case in cases_of(name)):
        pytest.skip("refused: tests/data/augment/test_strength.py")
    changes = {"dali__device": "cpu"} if engine == "dali" else {}
    model, data = build(calm_config(tmp_path, name, data__engine=engine, **changes))
    record = Record()
    fit(model, data, max_epochs=2, callbacks=[record])
    assert len(record.losses) >= 10
    assert torch.tensor(record.losses).isfinite().all()
    own = {i: label for i, label in record.labels.items() if i < sum(COUNTS)}
    assert len(own) >= 24
    labels = np.repeat(np.arange(3), COUNTS)
    assert all(labels[i] == label for i, label in own.items())
