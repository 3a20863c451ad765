# SPDX-License-Identifier: MIT
"""COLT over every method of the real solo-learn: three epochs, OOD images in two of them."""

import warnings
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from tests.kit.hosts import NAMES, SOLO_HEADS, make_cfg, needs_solo
from tests.kit.tiny import tiny_config
from tests.methods.test_colt import BUDGET, IMAGES, Watch, build, fit

pytestmark = needs_solo
LOW = {"vibcreg": 1e-5}  # explodes at the others' rate, with and without COLT


@pytest.mark.parametrize("base", sorted({*NAMES, *SOLO_HEADS} - {"deepclusterv2"}))
def test_three_epochs_over_every_method(base: str, tmp_path: Any) -> None:
    from ltplugins.host.solo import apply_fixes

    apply_fixes()
    cfg = tiny_config(tmp_path, "colt_simclr", optimizer__lr=LOW.get(base, 0.005))
    kwargs = OmegaConf.to_container(make_cfg(base).method_kwargs)
    assert isinstance(kwargs, dict)
    cfg.method_kwargs = {**kwargs, "colt": cfg.method_kwargs.colt}
    cfg.method = f"colt_{base}"
    cfg.backbone = {"name": "resnet18"}
    model, data = build(cfg)
    watch = Watch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = fit(model, data, watch)
    assert [len(s) for s in watch.subsets] == [0, BUDGET, BUDGET]
    assert trainer.global_step == trainer.estimated_stepping_batches == 5 + 6 + 6
    assert watch.rates[-1] < watch.rates[0] or watch.rates[-1] == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(trainer.callback_metrics["train_colt_loss_epoch"])
    assert max(i for _, batch in watch.drawn for i in batch) >= IMAGES
    assert model.cfg.method == base


def test_a_memory_of_one_epochs_size_is_refused(tmp_path: Any) -> None:
    cfg = tiny_config(tmp_path, "colt_simclr")
    kwargs = OmegaConf.to_container(make_cfg("deepclusterv2").method_kwargs)
    assert isinstance(kwargs, dict)
    cfg.method_kwargs = {**kwargs, "colt": cfg.method_kwargs.colt}
    cfg.method = "colt_deepclusterv2"
    cfg.backbone = {"name": "resnet18"}
    with pytest.raises(UserError, match="a memory of one epoch's size"):
        build(cfg)
