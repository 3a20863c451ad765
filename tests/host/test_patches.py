# SPDX-License-Identifier: MIT
"""A ViT is built for the crops that it gets."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.host.build import build_model
from ltplugins.host.patches import fit_to_crops
from tests.kit.hosts import make_cfg


def kwargs_of(*sizes: int, name: str = "vit_tiny", **kwargs: Any) -> dict[str, Any]:
    blocks = [{"crop_size": size, "num_crops": 2} for size in sizes]
    cfg = make_cfg("simclr", backbone={"name": name, "kwargs": kwargs}, augmentations=blocks)
    return dict(OmegaConf.select(fit_to_crops(cfg), "backbone.kwargs"))


def test_sizes_by_hand() -> None:
    assert kwargs_of(224) == {}
    assert kwargs_of(28) == {"img_size": 28, "patch_size": 4}  # 7 x 7
    assert kwargs_of(32) == {"img_size": 32, "patch_size": 4}  # 8 x 8
    assert kwargs_of(64) == {"img_size": 64, "patch_size": 8}
    assert kwargs_of(96) == {"img_size": 96, "patch_size": 8}
    assert kwargs_of(128) == {"img_size": 128, "patch_size": 16}
    assert kwargs_of(32, patch_size=8) == {"img_size": 32, "patch_size": 8}
    assert kwargs_of(32, img_size=48) == {"img_size": 48}
    assert kwargs_of(224, 96) == {"dynamic_img_size": True}
    assert kwargs_of(28, name="resnet18") == {}


def test_a_crop_that_no_patch_divides_is_refused() -> None:
    with pytest.raises(UserError, match=r"backbone.name: vit_tiny .* crops of 31"):
        kwargs_of(31)


def test_it_takes_its_crops() -> None:
    blocks = [{"crop_size": 28, "num_crops": 2}]
    cfg = make_cfg("simclr", backbone__name="vit_tiny", augmentations=blocks)
    model = build_model(cfg, 1, False)
    with torch.no_grad():
        assert model.backbone(torch.zeros(2, 3, 28, 28)).shape == (2, model.features_dim)
