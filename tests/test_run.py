# SPDX-License-Identifier: MIT
"""``python -m ltplugins.run``: solo-learn's own main with our names, and what it refuses."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.data.sources.records import RECORDS
from ltplugins.runs.checkpoint import TrainedRun
from ltplugins.runs.model import load_trained
from tests.kit import forked
from tests.kit.hosts import needs_solo
from tests.kit.solo_yaml import solo_root
from tests.kit.tiny import tiny_config, write_folder


def run(module: str, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return forked.run(command, cwd=cwd, env={**os.environ, **env})


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The error's text on one line, after checking that it is an error of the user's."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.mark.parametrize("arguments", [(), ("nowhere.py",), (".",)])
def test_a_missing_script_is_named(arguments: tuple[str, ...], tmp_path: Path) -> None:
    text = refusal(run("ltplugins.run", *arguments, cwd=tmp_path))
    assert "usage: python -m ltplugins.run SCRIPT" in text
    assert f"got {arguments[0] if arguments else 'nothing'}." in text


def test_without_solo_learn(tmp_path: Path) -> None:
    if importlib.util.find_spec("solo") is not None:
        pytest.skip("solo-learn is here")
    (tmp_path / "main.py").write_text("raise SystemExit('not reached')")
    text = refusal(run("ltplugins.run", "main.py", cwd=tmp_path))
    assert "no package named 'solo' was found. Expected solo-learn 1.0.6" in text


def test_with_another_package_called_solo(tmp_path: Path) -> None:
    """The script's own folder comes first on the path, so its ``solo`` is what is found."""
    (tmp_path / "main.py").write_text("raise SystemExit('not reached')")
    (tmp_path / "solo").mkdir()
    (tmp_path / "solo/__init__.py").write_text("")
    text = refusal(run("ltplugins.run", "main.py", cwd=tmp_path))
    assert "solo.methods" in text
    assert "Expected solo-learn 1.0.6" in text


GH = ("+method_kwargs.gh.num_directions=5", "+method_kwargs.gh.num_iters=5")


@pytest.mark.slow
def test_our_errors_are_one_line_under_solo_learns_main(tmp_path: Path) -> None:
    """Hydra would print "Error executing job" and the end of a traceback, and exit with 1."""
    root = solo_root()
    if root is None:
        pytest.skip("solo-learn is imported from no source tree")
    write_folder(tmp_path / "train", (10, 5, 3))
    done = run(
        "ltplugins.run",
        str(root / "main_pretrain.py"),
        *("--config-path", str(root / "scripts/pretrain/cifar"), "--config-name", "simclr.yaml"),
        *("method=gh_simclr", "data.dataset=custom", "devices='1'", "wandb.enabled=False"),
        *(f"data.{part}_path={tmp_path / 'train'}" for part in ("train", "val")),
        "+method_kwargs.gh.temprature=0.2",
        cwd=tmp_path,
    )
    text = refusal(done)
    assert "unknown key 'method_kwargs.gh.temprature'. Did you mean 'temperature'?" in text
    assert "Error executing job" not in text
    assert done.stderr.count("solo-learn is repaired") == 1


def main_of_solo_learn(tmp_path: Path, *changes: str, method: str = "gh_simclr") -> Path:
    """Train with solo-learn's main on the CPU; return the newest checkpoint's folder."""
    root = solo_root()
    if root is None:
        pytest.skip("solo-learn is imported from no source tree")
    if not (tmp_path / "train").exists():
        write_folder(tmp_path / "train", (10, 5, 3))
        write_folder(tmp_path / "val", (2, 2, 2))
    done = run(
        "ltplugins.run",
        str(root / "main_pretrain.py"),
        *("--config-path", str(root / "scripts/pretrain/cifar"), "--config-name", "simclr.yaml"),
        *(f"method={method}", "data.dataset=custom", "data.num_workers=1"),
        *(f"data.{part}_path={tmp_path / part}" for part in ("train", "val")),
        *("accelerator=cpu", "precision=32", "strategy=auto", "sync_batchnorm=False"),
        "devices='1'",  # its main takes the length of this, Lightning's CPU the number in it
        *("wandb.enabled=False", "max_epochs=2", "optimizer.batch_size=4"),
        *(GH if method.startswith("gh_") else ()),
        *("+checkpoint.keep_prev=True", "auto_resume.enabled=False", *changes),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folders = (tmp_path / "trained_models" / method).iterdir()
    return max(folders, key=lambda folder: (folder / "args.json").stat().st_mtime_ns)


def load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by solo-learn's main, with ``...-ep=0.ckpt`` and ``...-ep=1.ckpt``."""
    return main_of_solo_learn(tmp_path_factory.mktemp("main"))


@pytest.mark.slow
def test_solo_learns_main_trains_gh(trained: Path) -> None:
    args = json.loads((trained / "args.json").read_text())
    assert args["method"] == "gh_simclr"
    assert "num_samples" not in args["data"]  # the loader told it
    (first,) = trained.glob("*-ep=0.ckpt")
    (last,) = trained.glob("*-ep=1.ckpt")
    state = load(last)["state_dict"]
    assert state["gh_memory"].shape == (18, 5)
    assert 16 <= state["gh_memory_filled"].sum() <= 18
    # Warm-up is 50% of 2 epochs: at the first's end the prior is due. solo-learn's checkpoint is
    # written just before, so it is in the second's.
    assert not load(first)["state_dict"]["gh_prior_is_set"]
    assert state["gh_prior_is_set"]


@pytest.mark.slow
def test_solo_learns_main_resumes_gh(trained: Path) -> None:
    (first,) = trained.glob("*-ep=0.ckpt")
    folder = trained.parents[2]
    resumed = main_of_solo_learn(folder, f"+resume_from_checkpoint='{first}'")
    assert resumed != trained
    (last,) = resumed.glob("*.ckpt")
    a, b = load(last), load(next(trained.glob("*-ep=1.ckpt")))
    assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"]) == (1, 8)
    # The prior of the first epoch's end, recomputed from the memory that was loaded.
    assert a["state_dict"]["gh_prior_is_set"]
    assert torch.equal(a["state_dict"]["gh_prior"], b["state_dict"]["gh_prior"])
    was_filled = load(first)["state_dict"]["gh_memory_filled"]
    assert (a["state_dict"]["gh_memory_filled"] >= was_filled).all()


@pytest.mark.slow
def test_solo_learns_main_trains_on_our_data(tmp_path: Path) -> None:
    """A long tail, a pool of OOD images and their sampler, cropped by another engine."""
    folder = main_of_solo_learn(
        tmp_path,
        "+data.engine=batched",
        *("+data.imbalance.kind=exp", "+data.imbalance.factor=4", "+data.imbalance.max_count=8"),
        *("+data.ood.dataset=emoji_pack", "+data.sampler=id_plus_ood"),
        *("+method_kwargs.colt.warmup=1", "+method_kwargs.colt.budget=8"),
        "+method_kwargs.colt.num_clusters=2",
        method="colt_simclr",
    )
    args = json.loads((folder / "args.json").read_text())
    assert (args["data"]["num_samples"], args["data"]["num_classes"]) == (14, 3)  # 8 + 4 + 2
    (last,) = folder.glob("*-ep=1.ckpt")
    content = load(last)
    assert content["state_dict"]["colt_memory"].shape == (14,)
    assert content["global_step"] == 14 // 4 + (14 + 8) // 4
    assert len(content["LTDataModule"]["ood_subset"]) == 8


@pytest.mark.slow
@pytest.mark.parametrize("host", ["solo", "builtin"])
def test_evaluate_a_checkpoint_of_solo_learns_main(host: str, trained: Path) -> None:
    (last,) = trained.glob("*-ep=1.ckpt")  # the "=" means something to Hydra
    few = ["eval.knn.k=2", "eval.linear.shots=[2]", "eval.seeds=[0]"]
    arguments = ("evaluate", str(last), "device=cpu", *few)
    done = run("ltplugins.cli", *arguments, cwd=trained, LTPLUGINS_HOST=host)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((trained / "results.json").read_text())
    assert (results["method"], results["epoch"]) == ("gh_simclr", 2)
    assert results["split"]["hash"]
    assert {"knn_k2_T0.07", "linear_2shot"} <= set(results["protocols"])


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    cfg = resolve(tiny_config(tmp_path, "simclr", backbone__name="resnet18"))
    state = {"backbone.conv1.weight": torch.zeros(1, 3, 3, 3), "backbone.other": torch.zeros(1)}
    run = TrainedRun(tmp_path, tmp_path / "x.ckpt", cfg, None, state, 1)
    with pytest.raises(UserError, match="does not fit backbone resnet18: 1 keys have another"):
        load_trained(run, RECORDS["fashion_pack"])
    del state["backbone.conv1.weight"]
    with pytest.raises(UserError, match=r"keys missing .*, 1 left over .other."):
        load_trained(run, RECORDS["fashion_pack"])


for test in (
    test_solo_learns_main_trains_gh,
    test_solo_learns_main_resumes_gh,
    test_solo_learns_main_trains_on_our_data,
    test_evaluate_a_checkpoint_of_solo_learns_main,
):
    test.pytestmark += needs_solo  # type: ignore[attr-defined]
