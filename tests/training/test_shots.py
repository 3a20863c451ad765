# SPDX-License-Identifier: MIT
"""Accuracy by shot group in a run's metrics, on both hosts and under DDP."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from ltplugins.metrics.groups import group_accuracy, shot_groups
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import pretrain
from ltplugins.training.shots import ShotGroups
from tests.kit.hosts import HOSTS, Batches, host_methods, make_cfg, tiny_cfg
from tests.kit.ranks import as_launched, join_ranks, run_ranks
from tests.kit.runs import quiet_trainer
from tests.kit.tiny import tiny_config

WORLD = 2
COUNTS = [200, 50, 10]
GROUPS = ("many", "medium", "few")
KNN = {"enabled": True, "k": 1, "distance_func": "cosine"}


def batches(train: bool, start: int = 0, stop: int = 16, size: int = 4) -> Any:
    data = torch.utils.data.Subset(Batches(16, train), range(start, stop))
    return torch.utils.data.DataLoader(data, batch_size=size)


def train_one_epoch(model: Any, val: Any, **kwargs: Any) -> dict[str, float]:
    options = {"max_epochs": 1, "limit_val_batches": 1.0, "num_sanity_val_steps": 2}
    trainer = quiet_trainer(**options, callbacks=[ShotGroups(COUNTS, "threshold")], **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, batches(train=True), val)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def predictions(model: Any, loader: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the online classifier after the epoch, as the validation saw it."""
    model.eval()
    with torch.no_grad():
        pairs = [(model(x)["logits"].argmax(dim=1), targets) for x, targets in loader]
    preds, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return preds, targets


def check(logged: dict[str, float], preds: torch.Tensor, targets: torch.Tensor) -> None:
    expected = group_accuracy(preds, targets, shot_groups(COUNTS, "threshold"), 3).as_dict()
    sizes = torch.bincount(targets, minlength=3).tolist()
    for group in GROUPS:
        assert logged[f"val_acc1_{group}"] == pytest.approx(100 * expected[group]), group
    # The groups make up the host's own number; of the kNN there is no other.
    for name in ("val_acc1", "val_knn_acc1"):
        parts = [logged[f"{name}_{group}"] * n for group, n in zip(GROUPS, sizes, strict=True)]
        assert sum(parts) / sum(sizes) == pytest.approx(logged[name], rel=1e-5), name


@pytest.mark.parametrize("method", ["simclr", "byol"])
@pytest.mark.parametrize("host", HOSTS)
def test_logged_on_both_hosts(host: str, method: str) -> None:
    if host == "solo":
        from ltplugins.host.solo import apply_fixes

        apply_fixes()
    make = tiny_cfg if host == "builtin" else make_cfg
    torch.manual_seed(0)
    changes = {"knn_eval": KNN, "max_epochs": 1, "scheduler__name": "none"}
    model = host_methods(host)[method](make(method, **changes))
    val = batches(train=False, stop=14, size=5)  # 5, 5 and 4 images
    logged = train_one_epoch(model, val)
    check(logged, *predictions(model, val))
    assert not model._forward_hooks
    assert model.knn.on_predictions is None


def on_rank(rank: int, world: int, folder: Path) -> dict[str, Any]:
    join_ranks(rank, world, folder)
    as_launched(rank, world)
    torch.manual_seed(0)
    changes = {"knn_eval": KNN, "max_epochs": 1, "scheduler__name": "none"}
    model = host_methods("builtin")["simclr"](tiny_cfg("simclr", **changes))
    # Rank 0 has nine validation images, rank 1 four.
    val = batches(False, 0, 9, 5) if rank == 0 else batches(False, 9, 13, 2)
    logged = train_one_epoch(model, val, devices=world, strategy="ddp", default_root_dir=folder)
    preds, targets = predictions(model, val)
    return {"logged": logged, "preds": preds, "targets": targets}


def test_two_ranks_log_what_one_would(tmp_path: Path) -> None:
    ranks = run_ranks(on_rank, WORLD, tmp_path)
    preds, targets = (torch.cat([part[key] for part in ranks]) for key in ("preds", "targets"))
    names = [f"{name}_{g}" for name in ("val_acc1", "val_knn_acc1") for g in GROUPS]
    for part in ranks:
        assert part["logged"].items() >= {n: ranks[0]["logged"][n] for n in names}.items()
        expected = group_accuracy(preds, targets, shot_groups(COUNTS, "threshold"), 3).as_dict()
        for group in GROUPS:
            assert part["logged"][f"val_acc1_{group}"] == pytest.approx(100 * expected[group])


def test_a_run_logs_its_groups_by_the_rule_of_its_reports(tmp_path: Path) -> None:
    changes = {"max_epochs": 1, "eval__groups": ["threshold", "tercile"]}
    run = pretrain(tiny_config(tmp_path, "simclr", **changes))
    # 24, 12 and 6 training images: medium, few and few; no class is many-shot.
    metrics = read_metrics(run / "metrics.csv")
    assert {"val_acc1", "val_acc1_medium", "val_acc1_few"} <= set(metrics)
    assert "val_acc1_many" not in metrics


def test_without_validation_nothing_is_logged(tmp_path: Path) -> None:
    run = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1, limit_val_batches=0))
    assert not any(name.startswith("val_acc1") for name in read_metrics(run / "metrics.csv"))
