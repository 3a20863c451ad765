# SPDX-License-Identifier: MIT
"""Names of Lightning's own: there at both ends of the range (``make oldest`` runs this, too)."""

import lightning.pytorch as pl
import pytest
from torchmetrics import MeanMetric

from ltplugins.core.errors import UserError
from ltplugins.training import private
from ltplugins.training.within import _collected, _restore_metric


@pytest.fixture(scope="module")
def trainer() -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)


def test_this_version_has_them(trainer: pl.Trainer) -> None:
    private.require_private(trainer)


@pytest.mark.parametrize("name", ["fit_loop._gone", "_gone.x", "strategy.launcher.x.y"])
def test_another_version_is_refused_in_one_line(
    name: str, trainer: pl.Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "NAMES", (*private.NAMES, name))
    with pytest.raises(UserError, match=rf"lightning {pl.__version__} has no {name} in its") as e:
        private.require_private(trainer)
    assert "\n" not in str(e.value)
    assert "pip install" in str(e.value)


def test_a_metric_goes_on_from_what_it_had_collected(trainer: pl.Trainer) -> None:
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.mean = MeanMetric()

    one, other = Module(), Module()
    for value in (1.0, 2.0):
        one.mean.update(value)
    trainer.strategy._lightning_module = one
    found = _collected(trainer)
    _restore_metric(other.mean, found["mean"])
    other.mean.update(6.0)
    assert float(other.mean.compute()) == 3.0
    assert other.mean.update_count == 3
