# SPDX-License-Identifier: MIT
"""Every method on a GPU: it trains, equals the CPU, waits for nothing in a step, and resumes."""

from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.kit.cases import cases_of, names, over_simclr, run_names
from tests.kit.gpu import DEVICE, NoWaiting, all_there, on_a_gpu
from tests.kit.hosts import NAMES, on_the_stand_in
from tests.kit.runs import assert_resumes, build, fit
from tests.kit.tiny import calm_config
from tests.kit.two_steps import two_steps

EACH = [*NAMES, *over_simclr()]
PRECISIONS = ["32-true", "bf16-mixed"]


class Everything(pl.Callback):
    """All that a method keeps is on the device while it trains."""

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        all_there(module)


def trained(name: str, folder: Path, precision: str, callbacks: list[pl.Callback]) -> Any:
    """The model and trainer of a short run on the device, of data that the device augments."""
    hardest = {k: v for case in cases_of(name) for k, v in case.run.bf16.items()}
    changes = {f"method_kwargs__{key}": value for key, value in hardest.items()}
    changes["backbone__small_stem"] = True  # tests/methods/matrix/test_precision.py says why
    model, data = build(calm_config(folder, name, **changes))
    epochs = max(2, *(case.run.epochs for case in cases_of(name)))
    trainer = fit(
        model,
        data,
        max_epochs=epochs,
        precision=precision,
        accelerator=DEVICE,
        callbacks=callbacks,
        log_every_n_steps=1000,  # what is logged is fetched, and waited for
    )
    return model, trainer


@on_a_gpu
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", EACH)
def test_it_trains_and_keeps_everything_on_the_device(
    name: str, precision: str, tmp_path: Path
) -> None:
    model, trainer = trained(name, tmp_path, precision, [Everything()])
    losses = {k: v for k, v in trainer.callback_metrics.items() if "loss" in k}
    assert losses
    assert all(torch.isfinite(value) for value in losses.values()), losses
    for case in cases_of(name):
        case.run.check(model)
        for path in case.run.float32:
            tensor = attrgetter(path)(model)
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all()
            assert tensor.abs().sum() > 0


@on_a_gpu
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", EACH)
def test_no_step_waits_for_the_device(name: str, precision: str, tmp_path: Path) -> None:
    watch = NoWaiting()
    trained(name, tmp_path, precision, [watch])
    assert watch.watched >= 8


@on_a_gpu
@on_the_stand_in
@pytest.mark.parametrize("name", names())
def test_two_steps_equal_the_cpus(name: str) -> None:
    """In double: what is remembered after the first step decides the second."""
    one, two = two_steps(name, "uneven"), two_steps(name, "uneven", device=DEVICE)
    torch.testing.assert_close(two["loss"].cpu(), one["loss"], rtol=1e-8, atol=1e-10)
    for key, expected in one["grads"].items():
        torch.testing.assert_close(two["grads"][key].cpu(), expected, rtol=1e-6, atol=1e-9, msg=key)
    for key, expected in one["buffers"].items():
        found = two["buffers"][key]
        assert found.device.type == DEVICE, key
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6, msg=key)


@on_a_gpu
@pytest.mark.parametrize("name", run_names())
def test_a_killed_run_ends_as_the_unbroken_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, where the device is told to add in a fixed order."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    config = partial(
        calm_config,
        tmp_path,
        name,
        max_epochs=3,
        log_every_n_steps=1,
        accelerator=DEVICE,
        deterministic="warn",
    )
    try:
        assert_resumes(config, tmp_path, monkeypatch)
    finally:
        torch.use_deterministic_algorithms(False)
