# SPDX-License-Identifier: MIT
"""From a run to its numbers and its page; wrong inputs come back as one clear line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.cli import main
from ltplugins.core.errors import UserError
from ltplugins.core.records import to_plain
from ltplugins.eval.gallery import read_gallery
from ltplugins.eval.results import Results
from ltplugins.runs.metrics import read_epochs
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import _show, evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report
from tests.kit import forked
from tests.kit.tiny import tiny_config, write_arrays


def evaluate_config(run, **changes):
    cfg = compose_packaged("evaluate", [f"run={run}"])
    OmegaConf.set_struct(cfg, False)
    cfg.eval.knn.k = 3
    cfg.eval.linear.shots = [4]
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return cfg


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    for method in ("simclr", "gh_simclr"):
        for seed in (0, 1):
            out = str(folder / f"{method}-{seed}")
            cfg = tiny_config(folder, method, max_epochs=2, seed=seed, output_dir=out)
            paths.append(pretrain(cfg))
            evaluate(evaluate_config(out))
    return paths


def test_results_say_what_they_are(runs):
    results = json.loads((runs[0] / "results.json").read_text())
    assert set(results["protocols"]) == {"knn_k3_T0.07", "linear_4shot"}
    assert results["class_counts"] == [24, 12, 6]
    assert results["split"]["hash"]
    assert results["host"]
    assert (results["method"], results["seed"], results["epoch"]) == ("simclr", 0, 2)
    linear = results["protocols"]["linear_4shot"]
    assert linear["seeds"] == [0, 1, 2]
    assert 0 <= linear["overall"]["mean"] <= 1
    assert linear["groups"]["tercile"]["few"]["mean"] is not None
    # Class 2 has 6 training images: the threshold rule has a few-shot group of one class.
    assert results["groups"]["threshold"]["few"] == [1, 2]


def test_evaluation_is_repeatable_and_uses_the_cache(runs):
    first = (runs[0] / "results.json").read_text()
    stamps = {p: p.stat().st_mtime_ns for p in (runs[0] / "features").iterdir()}
    assert len(stamps) == 3  # probe set, test set, and two views of test images
    again = evaluate(evaluate_config(runs[0]))
    old = json.loads(first)
    assert to_plain(again) == {**old, "evaluated": again.evaluated}
    assert Results.read(runs[0] / "results.json") == again
    assert {p: p.stat().st_mtime_ns for p in (runs[0] / "features").iterdir()} == stamps


def test_pictures_are_kept_for_pages(runs, tmp_path):
    results = Results.read(runs[0] / "results.json")
    path = runs[0] / "gallery.npz"
    found = read_gallery(path, results.features["test"])
    images, labels = (np.load(runs[0].parent / "test.npz")[k] for k in ("images", "labels"))
    assert np.array_equal(found.images, images[found.places])
    assert np.array_equal(found.targets, labels[found.places]) and len(labels) == 24
    # All test images are in it: its votes are the protocol's.
    right = (found.preds == found.targets).mean()
    assert right == pytest.approx(results.protocols["knn_k3_T0.07"].overall.mean)
    assert found.targets[found.queries].tolist() == [2] * 8  # the rarest third of three
    bank = np.load(runs[0].parent / "train.npz")
    for near, label in zip(found.near_images[0], found.near_targets[0], strict=True):
        [same] = np.flatnonzero((bank["images"] == near).all(axis=(1, 2, 3)))
        assert bank["labels"][same] == label
    stamp = path.stat().st_mtime_ns
    evaluate(evaluate_config(runs[0], eval__knn=None))  # they stay, as the protocol does
    assert path.stat().st_mtime_ns == stamp
    copy = tmp_path / "alone.ckpt"
    copy.write_bytes((runs[0] / "checkpoints/last.ckpt").read_bytes())
    evaluate(evaluate_config(copy, eval__pictures=0, eval__linear=None, eval__health=None))
    assert not (tmp_path / "gallery.npz").exists()


def test_the_prior_is_logged_as_it_is_in_the_checkpoint(runs):
    tops, _ = read_epochs(runs[2] / "metrics.csv")
    state = torch.load(runs[2] / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    shares = sorted(state["gh_prior"].tolist(), reverse=True)
    for n in range(1, 10):
        whole, part = divmod(n * len(shares), 10)
        held = sum(shares[:whole]) + shares[whole] * part / 10
        assert tops[f"train_gh_prior_top{10 * n}_epoch"][1][-1] == pytest.approx(held, abs=1e-5)


def test_the_health_of_the_features_is_written(runs, tmp_path):
    found = Results.read(runs[0] / "results.json").health
    assert found.images == 24
    assert 1 <= found.rankme <= min(24, found.dim)
    assert -4 < found.uniformity < 0 < found.alignment < 4
    assert found.etf is not None
    copy = tmp_path / "alone.ckpt"
    copy.write_bytes((runs[0] / "checkpoints/last.ckpt").read_bytes())
    again = evaluate(evaluate_config(copy, eval__health={"images": 10, "views": 0})).health
    assert (again.images, again.alignment) == (10, None)
    assert again.etf == found.etf  # over all test images
    assert evaluate(evaluate_config(copy, eval__health=None)).health == again  # stays as it was
    (tmp_path / "results.json").unlink()
    assert evaluate(evaluate_config(copy, eval__health=None)).health is None


def test_collapsed_features_are_told(runs, tmp_path, caplog):
    content = torch.load(runs[0] / "checkpoints/last.ckpt", weights_only=True)
    for name, value in content["state_dict"].items():
        if name.startswith("backbone.") and value.dtype.is_floating_point and value.ndim > 1:
            value.zero_()
    torch.save(content, tmp_path / "dead.ckpt")
    results = evaluate(evaluate_config(tmp_path / "dead.ckpt"))
    assert "health: the features of all images point one way" in results.notes[-1]
    assert "point one way" in caplog.text


def test_a_checkpoint_alone_is_enough(runs, tmp_path):
    copy = tmp_path / "alone.ckpt"
    copy.write_bytes((runs[1] / "checkpoints/last.ckpt").read_bytes())
    alone = evaluate(evaluate_config(copy))
    there = json.loads((runs[1] / "results.json").read_text())
    assert (
        to_plain(alone.protocols["knn_k3_T0.07"].overall)
        == there["protocols"]["knn_k3_T0.07"]["overall"]
    )
    assert (tmp_path / "results.json").exists()


def test_training_set_as_bank(runs, tmp_path):
    copy = tmp_path / "alone.ckpt"
    copy.write_bytes((runs[1] / "checkpoints/last.ckpt").read_bytes())
    results = evaluate(evaluate_config(copy, eval__knn__bank="train"))
    assert results.protocols["knn_k3_T0.07_trainset"].n_train == 42


def test_protocols_of_an_earlier_evaluation_stay_beside(runs, tmp_path, caplog):
    copy, path = tmp_path / "alone.ckpt", tmp_path / "results.json"
    copy.write_bytes((runs[0] / "checkpoints/last.ckpt").read_bytes())
    first = evaluate(evaluate_config(copy, eval__groups=["tercile"]))
    other = {"eval__knn__k": 5, "eval__seeds": [0], "eval__remarks": ["as they do"]}
    second = evaluate(evaluate_config(copy, eval__groups=["threshold"], **other))
    assert set(second.protocols) == {"knn_k3_T0.07", "knn_k5_T0.07", "linear_4shot"}
    assert second.protocols["knn_k3_T0.07"] == first.protocols["knn_k3_T0.07"]
    assert (first.protocols["linear_4shot"].n, second.protocols["linear_4shot"].n) == (3, 1)
    assert list(second.groups) == ["threshold", "tercile"]
    # What is new is scored under the rules of what is old.
    assert set(second.protocols["knn_k5_T0.07"].groups) == {"threshold", "tercile"}
    assert Results.read(path) == second and second.notes[-1] == "as they do"
    report([copy], tmp_path / "report")  # the config is kept beside the results
    text = (tmp_path / "report/report.md").read_text()
    assert text.count("| simclr |") == 2 * 3  # one for each protocol in both tables

    path.rename(tmp_path / "kept.json")
    path.write_text("{")
    with pytest.raises(UserError, match=r"is damaged: .* would replace it: move it away first"):
        evaluate(evaluate_config(copy))
    assert path.read_text() == "{"
    (tmp_path / "kept.json").replace(path)
    copy.write_bytes((runs[1] / "checkpoints/last.ckpt").read_bytes())
    third = evaluate(evaluate_config(copy))
    kept, own = (OmegaConf.load(path / "config.yaml") for path in (tmp_path, runs[1]))
    assert kept.method == own.method and kept.seed == own.seed
    assert set(third.protocols) == {"knn_k3_T0.07", "linear_4shot"}
    [aside] = tmp_path.glob("results-*.json")
    assert Results.read(aside) == second and f"it is kept as {aside.name}" in caplog.text


def test_what_else_was_evaluated_parts_no_repetitions(runs, tmp_path):
    paths = [shutil.copytree(run, tmp_path / run.name) for run in runs[:2]]
    more = {"eval__knn": None, "eval__linear__shots": ["full"], "eval__health": None}
    evaluate(evaluate_config(paths[0], eval__remarks=["a preset"], **more))
    report(paths, tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    # One for each protocol in both tables; n/a of one run in the third.
    assert text.count("| simclr (n = 2) |") == 2 * 3, text


def test_report_of_several_runs(runs, tmp_path):
    page = report(runs, tmp_path / "report", title="Tiny")
    html = page.read_text()
    assert "gh_simclr" in html
    for name in ("classes", "neighbours", "alone", "prior"):
        assert f'<h2 id="{name}">' in html, name
    assert html.count('<g class="pt"') == 2 * 24
    assert "n=2" in html.replace(" ", "")
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert (tmp_path / "report/report.md").exists()


def test_what_of_a_run_is_lost_is_said(runs, tmp_path, caplog):
    copy = shutil.copytree(runs[0], tmp_path / "run")
    report([copy], tmp_path / "report")
    assert not caplog.records
    text = (copy / "metrics.csv").read_text()
    for lost in (text[: len(text) // 2], "", "\x00" + text):
        (copy / "metrics.csv").write_text(lost)
        report([copy], tmp_path / "report")
        assert f"{copy}/metrics.csv is damaged: the page has not all curves" in caplog.text
        caplog.clear()
    (copy / "metrics.csv").unlink()
    report([copy], tmp_path / "report")
    assert f"{copy}/metrics.csv is gone: the page has no curves" in caplog.text
    (copy / "run.json").unlink()
    report([copy], tmp_path / "report")
    assert f"{copy}/run.json is gone: the page lacks" in caplog.text


def test_runs_of_other_settings_or_data_are_rows_of_their_own(runs, tmp_path):
    paths = [runs[0]]
    for seed, changes in enumerate(({"optimizer__lr": 0.01}, {"max_epochs": 1}, {}), start=1):
        out = str(tmp_path / f"run{seed}")
        cfg = tiny_config(runs[0].parent, "simclr", max_epochs=2, seed=seed, output_dir=out)
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("__", "."), value)
        paths.append(pretrain(cfg))
        evaluate(evaluate_config(out))
    report(paths, tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    for row in (
        "| simclr (lr=0.05, max_epochs=2) (n = 2) |",
        "| simclr (lr=0.01, max_epochs=2) |",
        "| simclr (lr=0.05, max_epochs=1) |",
    ):
        assert text.count(row) == 4, row  # one for each protocol in both tables


def test_an_unfinished_run_is_marked_everywhere(tmp_path, capsys):
    cfg = tiny_config(tmp_path, "simclr", max_epochs=4)
    cfg.max_steps = 7  # of 5 an epoch
    path = pretrain(cfg)
    _show(evaluate_config(path))
    assert "simclr (tiny, 1/4 epochs)" in capsys.readouterr().out
    progress = Results.read(path / "results.json").progress
    assert (progress.epochs, progress.planned_epochs) == (1, 4)
    page = report([path], tmp_path / "report").read_text()
    assert "simclr (1/4 epochs)" in page
    assert "is not trained to its end: 1/4 epochs." in page
    assert "simclr (1/4 epochs)" in capsys.readouterr().out


def test_a_folder_of_runs_stands_for_its_runs(runs, tmp_path):
    page = report([runs[0].parent], tmp_path / "report")
    assert "n=2" in page.read_text().replace(" ", "")
    with pytest.raises(UserError, match="holds no run, and neither do the folders below"):
        report([tmp_path / "nothing"], tmp_path / "report")


def test_a_report_into_a_file_is_refused(runs, tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(UserError, match=r"^--out: expected a folder .*notes.md \(File exists\)"):
        report(runs[:1], tmp_path / "notes.md")
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_report_needs_evaluated_runs(tmp_path):
    path = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
    with pytest.raises(UserError, match=f"not evaluated yet: ltplugins evaluate {path}"):
        report([path], tmp_path / "report")


def test_changed_data_is_noticed(tmp_path):
    cfg = tiny_config(tmp_path, "simclr", max_epochs=1)
    cfg.data.imbalance = {"kind": "exp", "factor": 2, "max_count": 6}
    path = pretrain(cfg)
    write_arrays(tmp_path / "train.npz", (12, 12, 12))
    with pytest.raises(UserError, match="the split now has hash"):
        evaluate(evaluate_config(path))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: p / "nothing", "does not exist. Give a run folder, a .ckpt file or zoo://NAME"),
        (lambda p: p, "holds no run: expected run.json"),
        (
            lambda p: _write(p / "x.ckpt", b"not a checkpoint"),
            r"cannot be opened as a checkpoint \(UnpicklingError: Weights only load failed\)\.$",
        ),
        (lambda p: _save(p / "y.ckpt", {"a": 1}), "it has no state_dict"),
        (lambda p: _save(p / "z.ckpt", {"state_dict": {}, "epoch": 0}), "holds no config"),
    ],
)
def test_wrong_runs_are_named(make, text, tmp_path):
    with pytest.raises(UserError, match=text):
        evaluate(evaluate_config(make(tmp_path)))


def test_weights_that_do_not_fit_are_listed(runs, tmp_path):
    content = torch.load(runs[0] / "checkpoints/last.ckpt", weights_only=True)
    state = content["state_dict"]
    gone = next(k for k in state if k.startswith("backbone."))
    del state[gone]
    torch.save(content, tmp_path / "cut.ckpt")
    with pytest.raises(UserError, match=f"1 keys missing \\({gone.removeprefix('backbone.')}\\)"):
        evaluate(evaluate_config(tmp_path / "cut.ckpt"))


def test_a_checkpoint_that_would_run_code_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="cannot be opened"):
        evaluate(evaluate_config(tmp_path / "evil.ckpt"))
    assert not (tmp_path / "ran").exists()


def _write(path, data):
    path.write_bytes(data)
    return path


def _save(path, value):
    torch.save(value, path)
    return path


def test_cli_shows_one_clear_error_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "ltplugins.cli", "pretrain", "+method_kwargs.temprature=0.1"]
    result = forked.run(command, cwd=tmp_path)
    assert result.returncode == 2
    assert "error: unknown key 'method_kwargs.temprature'" in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_cli_evaluate_without_a_run(capsys):
    with pytest.raises(SystemExit) as end:
        main(["evaluate"])
    assert end.value.code == 2
    assert "run is missing" in capsys.readouterr().err


def test_importing_and_help_are_light():
    code = "import sys, ltplugins, ltplugins.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
    command = [sys.executable, "-m", "ltplugins.cli", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0
    assert "ltplugins demo" in result.stdout
