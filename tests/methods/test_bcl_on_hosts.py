# SPDX-License-Identifier: MIT
"""BCL over every method of the real solo-learn: three epochs, boosted views in two of them."""

import warnings
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from tests.kit.hosts import NAMES, SOLO_HEADS, make_cfg, needs_solo
from tests.kit.runs import build
from tests.kit.tiny import tiny_config
from tests.methods.test_bcl import Watch, watched

pytestmark = needs_solo
LOW = {"vibcreg": 1e-5}  # explodes at the others' rate, with and without BCL


@pytest.mark.parametrize("base", sorted({*NAMES, *SOLO_HEADS}))
def test_three_epochs_over_every_method(base: str, tmp_path: Any) -> None:
    from ltplugins.host.solo import apply_fixes

    apply_fixes()
    cfg = tiny_config(tmp_path, "bcl_simclr", optimizer__lr=LOW.get(base, 0.005))
    kwargs = OmegaConf.to_container(make_cfg(base).method_kwargs)
    assert isinstance(kwargs, dict)
    cfg.method_kwargs = {**kwargs, "bcl": cfg.method_kwargs.bcl}
    cfg.method = f"bcl_{base}"
    cfg.backbone = {"name": "resnet18"}
    model, data = build(cfg)
    watch = Watch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = watched(model, data, watch)
    assert trainer.global_step == 15
    assert torch.isfinite(trainer.callback_metrics["train_bcl_loss_epoch"])
    assert not watch.strengths[0].any()
    assert watch.strengths[2].max() == 1 or watch.strengths[2].min() == 0
    assert model.cfg.method == base
    if base == "simclr":
        own, theirs = (
            trainer.callback_metrics[f"train_{k}_epoch"] for k in ("bcl_loss", "nce_loss")
        )
        assert float(own) == pytest.approx(float(theirs), rel=1e-4)
