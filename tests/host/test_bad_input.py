# SPDX-License-Identifier: MIT
"""What a user sees for a wrong config, and which configs are right."""

import re
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.host.builtin import METHOD_KWARGS, METHODS
from ltplugins.host.builtin.backbones import build_backbone
from tests.kit.hosts import NAMES, host_methods, make_batch, make_cfg, tiny_cfg


def build(method: str = "simclr", **changes: Any) -> Any:
    return host_methods("builtin")[method](tiny_cfg(method, **changes))


BAD = {
    "backbone": (
        {"backbone__name": "resnet19"},
        "unknown backbone 'resnet19'. Did you mean 'resnet18'?",
    ),
    "timm name": (
        {"backbone__name": "convnext_tinny"},
        "unknown backbone 'convnext_tinny'. Did you mean 'convnext_tiny'?",
    ),
    "backbone kwargs": (
        {"backbone__name": "resnet18", "backbone__kwargs": {"img_size": 32}},
        "backbone.kwargs: resnet18 does not take {'img_size': 32}",
    ),
    "method_kwargs key": (
        {"method_kwargs__temprature": 0.1},
        "unknown key 'method_kwargs.temprature'. Did you mean 'temperature'?",
    ),
    "method_kwargs type": (
        {"method_kwargs__proj_hidden_dim": "wide"},
        "method_kwargs.proj_hidden_dim: expected a whole number of 1 or more, got 'wide' (str).",
    ),
    "optimizer key": (
        {"optimizer__weigth_decay": 0.1},
        "unknown key 'optimizer.weigth_decay'. Did you mean 'weight_decay'?",
    ),
    "scheduler interval": (
        {"scheduler__interval": "steps"},
        "scheduler.interval: expected one of step, epoch; got 'steps'. Did you mean 'step'?",
    ),
    "knn distance": (
        {"knn_eval": {"distance_func": "cosin"}},
        "knn_eval.distance_func: expected one of cosine, euclidean; got 'cosin'.",
    ),
    "small_stem type": (
        {"backbone__small_stem": "yes"},
        "backbone.small_stem: expected",
    ),
    "section": ({"scheduler": "cosine"}, "scheduler: expected a block of keys, got 'cosine'."),
    "classes": (
        {"data__num_classes": None},
        "data.num_classes: expected a whole number of 1 or more, got None",
    ),
    "epochs": ({"max_epochs": 2.5}, "max_epochs: expected a whole number of 1 or more, got 2.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_with_the_way_out(case: str) -> None:
    changes, text = BAD[case]
    with pytest.raises(UserError, match=re.escape(text)):
        build(**changes)


def test_missing_key() -> None:
    cfg = tiny_cfg("simclr")
    del cfg.method_kwargs["temperature"]
    with pytest.raises(UserError, match=re.escape("method_kwargs.temperature is missing")):
        METHODS["simclr"](cfg)


def test_bad_momentum() -> None:
    with pytest.raises(
        UserError, match=r"unknown key 'momentum.base_tua'. Did you mean 'base_tau'"
    ):
        build("byol", momentum__base_tua=0.9)
    with pytest.raises(
        UserError,
        match=r"base_tau: expected a number of at most momentum.final_tau \(0.9\), got 0.99",
    ):
        build("byol", momentum={"base_tau": 0.99, "final_tau": 0.9})


@pytest.mark.parametrize("method", ["barlow_twins", "mocov2plus", "simsiam", "vicreg"])
def test_pairwise_methods_refuse_three_views(method: str) -> None:
    with pytest.raises(UserError, match=f"{method} compares exactly two large crops"):
        build(method, data__num_large_crops=3)


@pytest.mark.parametrize("method", ["simclr", "supcon", "byol"])
def test_the_others_take_more(method: str) -> None:
    model = build(method, data__num_large_crops=3, data__num_small_crops=1)
    assert model.training_step(make_batch(views=4), 0).isfinite()


def test_every_method_has_typed_kwargs() -> None:
    own = {name for name, cls in METHODS.items() if cls.__module__.startswith("ltplugins.host")}
    assert own == set(METHOD_KWARGS) == set(NAMES)  # whatever a test has registered


def test_solo_yaml_extra_is_accepted() -> None:
    """solo-learn's simsiam.yaml carries a temperature that the method does not use."""
    assert build("simsiam", method_kwargs__temperature=0.2)


def test_defaults_are_written_back() -> None:
    cfg = make_cfg("barlow_twins")
    OmegaConf.set_struct(cfg, True)
    filled = METHODS["barlow_twins"].add_and_assert_specific_cfg(cfg)
    assert filled is cfg
    assert cfg.method_kwargs.lamb == 0.0051
    assert cfg.scheduler.warmup_start_lr == 3e-5
    assert cfg.knn_eval.distance_func == "euclidean"
    assert cfg.accumulate_grad_batches == 1
    again = OmegaConf.to_yaml(METHODS["barlow_twins"].add_and_assert_specific_cfg(cfg))
    assert again == OmegaConf.to_yaml(cfg)


@pytest.mark.parametrize(
    ("name", "kwargs", "width"),
    [
        ("resnet18", {}, 512),
        ("vit_tiny", {"img_size": 16, "patch_size": 8, "depth": 1}, 192),
        ("convnext_tiny", {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 24]}, 24),
        ("test_vit", {"img_size": 32}, 64),
    ],
)
def test_backbones_give_features(name: str, kwargs: dict[str, Any], width: int) -> None:
    backbone, features_dim = build_backbone(name, kwargs)
    assert features_dim == width
    size = kwargs.get("img_size", 32)
    assert backbone(torch.randn(2, 3, size, size)).shape == (2, width)


def test_queue_is_a_ring_for_any_batch() -> None:
    model = build("mocov2plus", method_kwargs__queue_size=5)
    for start in (0, 3, 6):
        keys = torch.arange(start, start + 3.0).view(1, 3, 1).expand(2, 3, 8)
        model.enqueue(keys)
    assert model.queue[0, 0].tolist() == [5.0, 6.0, 7.0, 8.0, 4.0]
    assert model.queue_ptr.item() == 4
    model.enqueue(torch.arange(7.0).view(1, 7, 1).expand(2, 7, 8))  # more than it holds
    assert sorted(model.queue[1, 0].tolist()) == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_unlabelled_images_are_no_class() -> None:
    """Two unlabelled images are not each other's positives; with one label they would be."""
    model = build("supcon")
    indexes, views, _ = make_batch(2)
    seen: dict[str, float] = {}
    model.log_train = lambda metrics, n: seen.update({k: v.item() for k, v in metrics.items()})
    torch.manual_seed(0)
    model.eval()  # batch statistics are not the point here
    unlabelled = model.training_step([indexes, views, torch.tensor([-1, -1])], 0)
    alone = seen["train_nce_loss"]
    model.training_step([indexes, views, torch.tensor([1, 1])], 0)
    assert unlabelled.isfinite()
    assert alone > seen["train_nce_loss"] == pytest.approx(0.0, abs=1e-6)
