# SPDX-License-Identifier: MIT
"""solo-learn's YAML files run as they are: only method, data.imbalance, paths and sizes change."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torchvision import datasets

import ltplugins
from ltplugins.config.data import training_set
from ltplugins.config.resolve import resolve
from ltplugins.config.trainer import trainer_arguments
from ltplugins.core.errors import UserError
from ltplugins.data.datamodule import build_datamodule
from ltplugins.host.check import check_method
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.pretrain import build_model
from tests.kit import forked
from tests.kit.hosts import needs_solo
from tests.kit.paths import ROOT
from tests.kit.solo_yaml import solo_root, write_solo_yaml
from tests.kit.tiny import write_cifar10, write_cifar100, write_folder

ON_CIFAR = ("cifar", "cifar-multicrop")
SETS = (*ON_CIFAR, "custom", "imagenet", "imagenet-100", "imagenet-100-multicrop")
SHORT = ["optimizer.batch_size=4", "data.num_workers=1"]
IMBALANCE = ["+data.imbalance.kind=exp", "+data.imbalance.factor=4"]
# 64 dimensions have room for 65 directions; it whitens as many images as a batch has.
NARROW = {"wmse": ["+method_kwargs.gh.num_directions=20", "method_kwargs.whitening_size=4"]}


@pytest.fixture
def no_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        datasets.cifar, "check_integrity", lambda path, md5=None: Path(path).exists()
    )


def composed(folder: Path, name: str, overrides: list[str]) -> Any:
    with initialize_config_dir(str(folder), version_base="1.2"):
        return compose(name, overrides=overrides)


def build(cfg: Any) -> tuple[Any, Any]:
    """Check the config, open its data and build its method, as the stage does."""
    from ltplugins.host import METHODS

    ltplugins.register()
    config = resolve(cfg)
    check_method(config.method, METHODS)
    training = training_set(config)
    data = build_datamodule(training, config.seed)
    config = config.with_counts(training.num_samples, training.num_classes)
    assert trainer_arguments(config)["strategy"]
    return build_model(config.host, 1, training.record.small_stem), data


def test_the_keys_of_solo_learns_files(tmp_path: Path, no_md5: None) -> None:
    folder = write_solo_yaml(tmp_path / "conf")
    write_cifar10(tmp_path, per_file=8)
    paths = [f"data.train_path={tmp_path}", f"data.val_path={tmp_path}", *SHORT]
    for method in ("byol", "gh_byol"):
        cfg = composed(folder, "own.yaml", [f"method={method}", *IMBALANCE, *paths])
        model, data = build(cfg)
        assert model.batch_size == 4
        assert model.lr == pytest.approx(0.3 * 4 / 256 * 2)  # two batches are accumulated
        assert model.extra_optimizer_args == {
            "momentum": 0.9,
            "clip_lr": True,
            "eta": 0.01,
            "exclude_bias_n_norm": True,
        }
        assert model.backbone.conv1.kernel_size == (3, 3)
        assert data.class_counts.tolist() == [4, 3, 2, 2, 2, 1, 1, 1, 1, 1]
        assert len(data.training.blocks) == 2


def test_an_enabled_that_contradicts_its_prob_is_refused(tmp_path: Path, no_md5: None) -> None:
    folder = write_solo_yaml(tmp_path / "conf")
    write_cifar10(tmp_path, per_file=8)
    cfg = composed(folder, "own.yaml", [f"data.train_path={tmp_path}", *SHORT])
    OmegaConf.update(cfg, "augmentations.0.gaussian_blur.enabled", False)
    text = r"gaussian_blur.prob: expected 0 for a step that is off \(enabled: false.*got 0.5"
    with pytest.raises(UserError, match=text):
        build(cfg)


def pretrain_by_script(
    folder: Path, name: str, method: str, tmp_path: Path, host: str | None
) -> dict[str, Any]:
    """Train two epochs with ``scripts/pretrain.py``; check and return the last checkpoint."""
    write_cifar10(tmp_path / "data", per_file=8)
    paths = [f"data.{part}_path={tmp_path / 'data'}" for part in ("train", "val")]
    command = [
        sys.executable,
        str(ROOT / "tests/kit/any_data.py"),
        str(ROOT / "scripts/pretrain.py"),
    ]
    command += ["--config-path", str(folder), "--config-name", name, f"method={method}"]
    command += [*IMBALANCE, *paths, *SHORT, "max_epochs=2"]
    env = {**os.environ, **({"LTPLUGINS_HOST": host} if host else {})}
    done = forked.run(command, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = tmp_path.rglob("run.json")
    facts = json.loads(run.read_text())
    assert facts["finished"]
    assert facts["split"]["num_samples"] == 18
    assert "train_gh_loss_epoch" in read_metrics(run.parent / "metrics.csv")
    path = run.parent / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    assert checkpoint["epoch"] == 1
    assert checkpoint["state_dict"]["gh_memory"].shape == (18, 100)
    assert checkpoint["state_dict"]["gh_memory_filled"].sum() >= 16
    return {**facts, "folder": run.parent}


@pytest.mark.slow
def test_such_a_file_trains(tmp_path: Path) -> None:
    folder = write_solo_yaml(tmp_path / "conf")
    facts = pretrain_by_script(folder, "own.yaml", "gh_byol", tmp_path, None)
    assert facts["folder"] == tmp_path / "models/gh_byol/own-file"


def real_files() -> list[Any]:
    """Every pretraining file of solo-learn's source tree; Hydra takes no ``.yml``."""
    root = solo_root()
    folders = [root / "scripts/pretrain" / name for name in SETS] if root else []
    files = [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
    return [pytest.param(f, id=f"{f.parent.name}/{f.stem}") for f in files]


@pytest.mark.slow
@pytest.mark.parametrize("file", real_files())
def test_every_file_of_solo_learn_is_accepted(file: Path, tmp_path: Path, no_md5: None) -> None:
    """As it is and with GH: the config is valid and the method is built."""
    from ltplugins.host import METHODS
    from ltplugins.host.solo import apply_fixes

    apply_fixes()
    ltplugins.register()
    if file.parent.name in ON_CIFAR:
        write_cifar10(tmp_path)
        write_cifar100(tmp_path)
        train = val = tmp_path
    else:
        train, val = tmp_path / "train", tmp_path / "val"
        write_folder(train, (4, 2))
        write_folder(val, (1, 1))
    given = composed(file.parent, file.name, [])
    changes = [f"++data.train_path={train}", f"++data.val_path={val}", *SHORT]
    if given.data.get("format") == "dali":
        changes.append("data.format=image_folder")
    for method in (given.method, f"gh_{given.method}"):
        if method == "gh_mae":
            assert method not in METHODS
            continue
        wrapped = method != given.method
        extra = [c for c in NARROW.get(given.method, []) if wrapped or ".gh." not in c]
        model, _ = build(composed(file.parent, file.name, [f"method={method}", *changes, *extra]))
        assert hasattr(model, "gh_memory") == wrapped


test_every_file_of_solo_learn_is_accepted.pytestmark += needs_solo  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["solo", "builtin"])
@pytest.mark.parametrize("base", ["simclr", "byol"])
def test_files_of_solo_learn_train(base: str, host: str, tmp_path: Path) -> None:
    root = solo_root()
    if root is None:
        pytest.skip("solo-learn is imported from no source tree")
    folder = root / "scripts/pretrain/cifar"
    facts = pretrain_by_script(folder, f"{base}.yaml", f"gh_{base}", tmp_path, host)
    assert ("solo-learn" in facts["host"]) == (host == "solo")


test_files_of_solo_learn_train.pytestmark += needs_solo  # type: ignore[attr-defined]
