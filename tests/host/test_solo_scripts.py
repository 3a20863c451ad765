# SPDX-License-Identifier: MIT
"""Checkpoints go both ways: ours into solo-learn's scripts, solo-learn's into our stages."""

import json
import logging
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import open_run
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report
from tests.kit.hosts import needs_solo
from tests.kit.solo_yaml import solo_root
from tests.kit.sweeps import draw_nothing
from tests.kit.tiny import tiny_config, write_folder

EVAL = ["eval.knn.k=2", "eval.linear.shots=[2]", "eval.seeds=[0]", "device=cpu"]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ours, one epoch."""
    folder = tmp_path_factory.mktemp("ours")
    return pretrain(tiny_config(folder, "gh_simclr", max_epochs=1))


@pytest.fixture
def theirs(ours: Path, tmp_path: Path) -> Path:
    """A checkpoint as solo-learn's Checkpointer leaves it: no word of ours in it, args.json."""
    content = torch.load(ours / "checkpoints/last.ckpt", map_location="cpu", weights_only=True)
    args = {**content.pop("ltplugins")["config"], "wandb_run_id": "offline-x"}
    file = tmp_path / "trained_models/gh_simclr/offline-x/tiny-offline-x-ep=0.ckpt"
    file.parent.mkdir(parents=True)
    torch.save(content, file)
    (file.parent / "args.json").write_text(json.dumps(args))
    return file


def test_the_config_lies_beside_the_checkpoint(ours: Path) -> None:
    args = json.loads((ours / "checkpoints/args.json").read_text())
    assert args["method"] == "gh_simclr"
    assert args["data"]["num_classes"] == 3
    assert args["backbone"]["name"] == open_run(ours).cfg.backbone.name
    assert [p.name for p in (ours / "checkpoints").glob("*.ckpt")] == ["last.ckpt"]


@pytest.mark.parametrize("given", ["folder", "file", "both"])
def test_an_evaluated_checkpoint_of_solo_learns_goes_into_a_report(
    given: str, theirs: Path, ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_nothing(monkeypatch)
    evaluate(compose_packaged("evaluate", [f"run='{theirs}'", *EVAL]))
    runs = {"folder": [theirs.parent], "file": [theirs], "both": [theirs.parent.parent, ours]}
    if given == "both":
        evaluate(compose_packaged("evaluate", [f"run={ours}", *EVAL]))
    page = report(runs[given], tmp_path / "report")
    text = page.with_suffix(".md").read_text()
    assert "gh_simclr" in text
    assert "solo-learn" in text


def test_a_checkpoint_that_is_not_evaluated_is_told_how(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not evaluated yet: ltplugins evaluate .*ep=0\.ckpt"):
        report([theirs], tmp_path / "report")


def test_a_linear_checkpoint_is_called_one(theirs: Path) -> None:
    args = {"pretrained_feature_extractor": "trained_models/simclr/x.ckpt", "name": "linear"}
    (theirs.parent / "args.json").write_text(json.dumps(args))
    with pytest.raises(
        UserError,
        match=r"is a linear classifier of solo-learn's main_linear\.py: expected a checkpoint of a "
        r"pretraining\. Give the one that it was trained on, trained_models/simclr/x\.ckpt",
    ):
        open_run(theirs)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_args_file_is_one_line(text: str, theirs: Path) -> None:
    (theirs.parent / "args.json").write_text(text)
    with pytest.raises(UserError, match=r"args\.json"):
        open_run(theirs)


def knn_script(folder: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run solo-learn's main_knn.py in this process, on the CPU."""
    root = solo_root()
    if root is None:
        pytest.skip("solo-learn is imported from no source tree")
    for part in ("train", "val"):
        write_folder(folder / part, (4, 4, 4))
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self, **_: self)  # it calls nothing else
    paths = {"pretrained_checkpoint_dir": checkpoints, "dataset": "custom"}
    paths |= {f"{part}_data_path": folder / part for part in ("train", "val")}
    options: dict[str, Any] = {
        **paths,
        "data_format": "image_folder",
        "num_workers": 0,
        "k": 2,
        "batch_size": 4,
    }
    options |= {"temperature": 0.07, "feature_type": "backbone"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    words += ["--distance_function", "cosine", "euclidean"]
    monkeypatch.setattr(sys, "argv", ["main_knn.py", *words])
    runpy.run_path(str(root / "main_knn.py"), run_name="__main__")


@pytest.mark.slow
@pytest.mark.solo
@needs_solo[1]
@pytest.mark.parametrize("small_stem", [False, True])
def test_main_knn_opens_ours(
    small_stem: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    changes = {"backbone__name": "resnet18", "backbone__small_stem": small_stem}
    run = pretrain(tiny_config(tmp_path, "gh_simclr", max_epochs=1, **changes))
    knn_script(tmp_path, run / "checkpoints", monkeypatch)
    assert capsys.readouterr().out.count("Result: acc@1=") == 2


def test_the_repairs_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("solo")
    from ltplugins.host import _mend, prepare

    _mend.cache_clear()
    with caplog.at_level(logging.INFO, logger="ltplugins"):
        prepare()
        prepare()
    told = [r.message for r in caplog.records if "repaired" in r.message]
    assert len(told) == 1
    assert "ltplugins/host/solo.py" in told[0]
