# SPDX-License-Identifier: MIT
"""solo-learn's own mains: which keys are ours, and how further ranks are started."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.host.mains import _start_ranks_by, asked_of_ours, our_data
from tests.kit.hosts import needs_solo
from tests.kit.solo_yaml import BLOCK, write_solo_yaml
from tests.kit.tiny import write_folder

SOLOS = {"dataset": "custom", "train_path": "a", "format": "dali", "no_labels": False}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, []),
        ({"imbalance": None}, []),
        ({"imbalance": {"kind": "exp"}}, ["data.imbalance"]),
        ({"engine": "batched", "sampler": "shuffle"}, ["data.engine", "data.sampler"]),
        ({"imbalanc": 1}, ["data.imbalanc"]),
        ({"dataset": "fashion_pack"}, ["data.dataset=fashion_pack"]),
        ({"format": "file_list"}, ["data.format=file_list"]),
        ({"format": "h5"}, []),
    ],
)
def test_the_keys_that_solo_learn_leaves_out(data: dict[str, Any], expected: list[str]) -> None:
    assert asked_of_ours(OmegaConf.create({"data": {**SOLOS, **data}})) == expected


def test_a_whole_file_of_solo_learns_asks_nothing_of_ours(tmp_path: Path) -> None:
    cfg = OmegaConf.load(write_solo_yaml(tmp_path) / "own.yaml")
    blocks = OmegaConf.create(BLOCK.format(blur=True, blur_prob=0.5))
    assert asked_of_ours(OmegaConf.merge(cfg, {"augmentations": blocks})) == []
    blocks[0].randaugment = {"prob": 0.5}
    blocks[0].gaussian_blur.sigma = [0.1, 1.0]
    assert asked_of_ours(OmegaConf.merge(cfg, {"augmentations": blocks})) == [
        "augmentations[0].randaugment",
        "augmentations[0].gaussian_blur.sigma",
    ]


def test_further_ranks_start_as_the_first_did(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd

    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setattr(sys, "argv", ["main_pretrain.py", "method=gh_simclr"])
    _start_ranks_by("ltplugins.run")
    _start_ranks_by("ltplugins.run")  # twice is once
    command = [sys.executable, "-m", "ltplugins.run", "main_pretrain.py", "method=gh_simclr"]
    assert list(_basic_subprocess_cmd()) == command


def config(folder: Path, **data: Any) -> Any:
    write_folder(folder / "train", (8, 4, 2))
    cfg = OmegaConf.create(
        {
            "method": "simclr",
            "max_epochs": 1,
            "devices": "1",
            "backbone": {"name": "resnet18"},
            "data": {"dataset": "custom", "train_path": str(folder / "train"), **data},
            "augmentations": BLOCK.format(blur=True, blur_prob=0.5),
            "optimizer": {"name": "sgd", "batch_size": 2, "lr": 0.1, "classifier_lr": 0.1},
            "scheduler": {"name": "none"},
        }
    )
    cfg.augmentations = OmegaConf.create(BLOCK.format(blur=True, blur_prob=0.5))
    return cfg


@pytest.mark.parametrize("data", [{"imbalance": {"kind": "exp", "factor": 4}}, {}])
def test_its_main_trains_on_our_subset_where_it_is_asked_for(
    data: dict[str, Any], tmp_path: Path
) -> None:
    import lightning.pytorch as pl
    from solo.args import pretrain
    from solo.data import pretrain_dataloader

    before = pretrain.parse_cfg
    with our_data(lambda work: work()):
        cfg = pretrain.parse_cfg(config(tmp_path, **data))
        loader = pretrain_dataloader.prepare_dataloader([0] * 5, batch_size=2, num_workers=0)
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        shards = trainer._accelerator_connector.use_distributed_sampler
        if data:
            assert (cfg.data.num_samples, cfg.data.num_classes, loader, shards) == (
                7,
                3,
                None,
                False,
            )
            assert cfg.data.num_large_crops == 1
        else:
            assert "num_samples" not in cfg.data
            assert len(loader.dataset) == 5 and shards
    assert pretrain.parse_cfg is before


def test_other_mains_refuse_what_they_would_leave_out() -> None:
    from solo.args import linear

    with our_data(lambda work: work()), pytest.raises(UserError, match=r"data\.imbalance: solo-"):
        linear.parse_cfg(OmegaConf.create({"data": {**SOLOS, "imbalance": {"kind": "exp"}}}))


@pytest.mark.parametrize("name", ["pretrain", "linear"])
def test_a_number_of_devices_is_refused(name: str) -> None:
    """Their length scales the rate: ``len(1)`` was a TypeError, called a defect of ours."""
    from importlib import import_module

    with (
        our_data(lambda work: work()),
        pytest.raises(UserError, match=r"devices: .*devices=\[0, 1\]"),
    ):
        import_module(f"solo.args.{name}").parse_cfg(OmegaConf.create({"devices": 2, "data": {}}))


for test in (
    test_its_main_trains_on_our_subset_where_it_is_asked_for,
    test_other_mains_refuse_what_they_would_leave_out,
    test_a_number_of_devices_is_refused,
):
    test.pytestmark = [*getattr(test, "pytestmark", []), *needs_solo]  # type: ignore[attr-defined]
