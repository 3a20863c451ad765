# SPDX-License-Identifier: MIT
"""Every method trains in bf16 autocast, what it remembers kept in float32."""

from operator import attrgetter
from pathlib import Path

import pytest
import torch

from tests.kit.cases import cases_of, over_simclr
from tests.kit.hosts import NAMES
from tests.kit.runs import build, fit
from tests.kit.tiny import calm_config


@pytest.mark.parametrize("name", [*NAMES, *over_simclr()])
def test_bf16_autocast(name: str, tmp_path: Path) -> None:
    cases = cases_of(name)
    hardest = {k: v for case in cases for k, v in case.run.bf16.items()}
    changes = {f"method_kwargs__{key}": value for key, value in hardest.items()}
    # On CPUs with bf16 units oneDNN leaves the weight gradient of a strided convolution of a 1x1
    # image as the memory was, numbers or NaN; with the small stem no layer sees one.
    changes["backbone__small_stem"] = True
    model, data = build(calm_config(tmp_path, name, **changes))
    epochs = max(2, *(case.run.epochs for case in cases))
    trainer = fit(model, data, max_epochs=epochs, precision="bf16-mixed")
    losses = {k: v for k, v in trainer.callback_metrics.items() if "loss" in k}
    assert losses
    assert all(torch.isfinite(value) for value in losses.values()), losses
    for case in cases:
        case.run.check(model)
        for path in case.run.float32:
            tensor = attrgetter(path)(model)
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all()
            assert tensor.abs().sum() > 0  # something was remembered
