# SPDX-License-Identifier: MIT
"""Configs, generated batches and hosts for the host tests."""

import os
from functools import cache
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from ltplugins.host import HOST
from ltplugins.host.detect import find_solo

NAMES = ("barlow_twins", "byol", "mocov2plus", "simclr", "simsiam", "supcon", "vicreg")
CLASSES = 3
SIZE = 16
HEADS: dict[str, dict[str, Any]] = {
    "barlow_twins": {},
    "byol": {"pred_hidden_dim": 12},
    "mocov2plus": {"temperature": 0.2, "queue_size": 16},
    "simclr": {"temperature": 0.2},
    "simsiam": {"pred_hidden_dim": 12},
    "supcon": {"temperature": 0.2},
    "vicreg": {},
}
# What solo-learn's further methods need, beyond the two widths of the projector.
SOLO_HEADS: dict[str, dict[str, Any]] = {
    "all4one": {"pred_hidden_dim": 12, "temperature": 0.2, "queue_size": 16},
    "deepclusterv2": {"num_prototypes": [3, 3], "temperature": 0.1, "kmeans_iters": 2},
    "dino": {
        "num_prototypes": 16,
        "clip_grad": 0,
        "freeze_last_layer": 1,
        "student_temperature": 0.1,
        "teacher_temperature": 0.07,
        "warmup_teacher_temperature": 0.04,
        "warmup_teacher_temperature_epochs": 1,
    },
    "mocov3": {"pred_hidden_dim": 12, "temperature": 0.2},
    "nnbyol": {"pred_hidden_dim": 12, "queue_size": 16},
    "nnclr": {"pred_hidden_dim": 12, "temperature": 0.2, "queue_size": 16},
    "nnsiam": {"pred_hidden_dim": 12, "queue_size": 16},
    "ressl": {"queue_size": 16, "temperature_q": 0.1, "temperature_k": 0.04},
    "swav": {
        "queue_size": 8,
        "num_prototypes": 6,
        "temperature": 0.1,
        "epoch_queue_starts": 15,
        "freeze_prototypes_epochs": 0,
    },
    "vibcreg": {},
    # It whitens over the batch, which must be larger than the embedding.
    "wmse": {"proj_output_dim": 2, "whitening_iters": 1, "whitening_size": 4, "whitening_eps": 0},
}


@cache
def solo_usable() -> bool:
    return os.environ.get("LTPLUGINS_HOST") != "builtin" and find_solo().usable


HOSTS = [
    "builtin",
    pytest.param(
        "solo",
        marks=[
            pytest.mark.solo,
            pytest.mark.skipif(not solo_usable(), reason="no importable solo-learn 1.0.6"),
        ],
    ),
]
# Of what is stored for the stand-in's networks, or forked with them.
on_the_stand_in = pytest.mark.skipif(HOST.name != "builtin", reason="of the stand-in's networks")
needs_solo = [*HOSTS[1].marks]  # type: ignore[union-attr]


def host_methods(host: str) -> dict[str, Any]:
    """METHODS of one host, whichever is chosen by ltplugins.host."""
    if host == "solo":
        from solo.methods import METHODS
    else:
        from ltplugins.host.builtin import METHODS
    return METHODS


def make_cfg(method: str, **changes: Any) -> DictConfig:
    """A small solo-learn config; ``changes`` are dotted keys with "__" for the dot."""
    cfg = OmegaConf.create(
        {
            "method": method,
            "backbone": {"name": "resnet18"},
            "method_kwargs": {
                "proj_hidden_dim": 16,
                "proj_output_dim": 8,
                **(HEADS | SOLO_HEADS).get(method, {}),
            },
            "momentum": {"base_tau": 0.9, "final_tau": 1.0},
            "data": {
                "dataset": "cifar10",
                "num_classes": CLASSES,
                "num_large_crops": 2,
                "num_small_crops": 0,
            },
            "optimizer": {
                "name": "sgd",
                "batch_size": 4,
                "lr": 0.1,
                "classifier_lr": 0.05,
                "weight_decay": 1e-4,
            },
            "scheduler": {"name": "warmup_cosine", "warmup_epochs": 1},
            "max_epochs": 2,
        }
    )
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return cfg


def tiny_cfg(method: str, **changes: Any) -> DictConfig:
    """The stand-in's own tiny backbone: an eleven-layer timm ResNet of 0.4 M parameters."""
    return make_cfg(method, **{"backbone__name": "test_resnet", "data__dataset": "none", **changes})


def make_batch(n: int = 4, views: int = 2, seed: int = 0, labelled: bool = True) -> list[Any]:
    """A batch [indexes, views, targets] of noise."""
    g = torch.Generator().manual_seed(seed)
    images = [torch.randn(n, 3, SIZE, SIZE, generator=g) for _ in range(views)]
    targets = torch.arange(n) % CLASSES if labelled else torch.full((n,), -1)
    return [torch.arange(n), images, targets]


class Batches(torch.utils.data.Dataset[Any]):
    """``n`` generated images whose views depend on the index alone."""

    def __init__(self, n: int = 8, train: bool = True) -> None:
        self.batch, self.train = make_batch(n), train

    def __len__(self) -> int:
        return len(self.batch[0])

    def __getitem__(self, i: int) -> Any:
        index, views, targets = self.batch
        if self.train:
            return index[i], [view[i] for view in views], targets[i]
        return views[0][i], targets[i]


def loader(train: bool = True, n: int = 8) -> Any:
    return torch.utils.data.DataLoader(Batches(n, train), batch_size=4)
