# SPDX-License-Identifier: MIT
"""The data of an evaluation: those of the training, or a word about it; what can be given anew."""

import logging
import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ltplugins.config.identity import experiment
from ltplugins.core.errors import UserError
from ltplugins.eval.results import Results
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import gather_run
from tests.kit.tiny import tiny_config, write_folder

COUNTS = (12, 6, 4)
KNN = "knn_k3_T0.07"


def config(folder, **changes):
    """A run of one epoch on image folders."""
    given = {"data__format": "image_folder", "data__imbalance": None, "max_epochs": 1}
    for part, counts in (("train", COUNTS), ("val", (4, 4, 4))):
        if not (folder / part).exists():
            write_folder(folder / part, counts, size=16, seed=len(part))
        given[f"data__{part}_path"] = str(folder / part)
    return tiny_config(folder, "simclr", **{**given, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data and a run on them; tests work on a copy."""
    folder = tmp_path_factory.mktemp("trained")
    pretrain(config(folder))
    return folder


@pytest.fixture
def home(trained, tmp_path, monkeypatch):
    """A copy with relative paths in it, seen from inside."""
    folder = tmp_path / "home"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


def scores(run="run", *words):
    cfg = compose_packaged(
        "evaluate",
        [f"run={run}", "eval.knn.k=3", "eval.linear=null", "eval.groups=[tercile]", "device=cpu"],
    )
    for word in words:
        OmegaConf.update(cfg, *word.split("="), force_add=True)
    return evaluate(cfg)


HERE = ("data.train_path=train", "data.val_path=val")


def overall(results):
    return results.protocols[KNN].overall.mean


def test_exchanged_test_pictures_are_not_scored_from_the_cache(home):
    before = scores("run", *HERE)
    kept = {c: (home / f"val/class{c}").rename(home / f"was{c}") for c in range(3)}
    for c, folder in kept.items():
        shutil.copytree(folder, home / f"val/class{(c + 1) % 3}")
    after = scores("run", *HERE)
    assert after.parts["test"] != before.parts["test"]
    assert after.features["test"] != before.features["test"]
    # Each picture keeps its prediction and has another label: no hit of before is one now.
    assert overall(after) <= 1 - overall(before)


def test_data_that_were_moved_are_those_of_the_training(home):
    results = scores("run", *HERE)  # trained elsewhere
    assert results.notes == []
    assert results.data == {"train_path": "train", "val_path": "val"}
    assert Results.read(home / "run/results.json") == results


def test_a_renamed_class_is_told(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "here")
    cfg = config(tmp_path / "here", output_dir=str(tmp_path / "run"))
    run = pretrain(cfg)
    for part in ("train", "val"):
        (tmp_path / f"here/{part}/class0").rename(tmp_path / f"here/{part}/zebra")
    with pytest.raises(UserError, match="class 'class0' is gone, class 'zebra' is new"):
        scores(run)
    assert not (run / "results.json").exists()
    # Other names are no other bank: they would turn one class's number into another's.
    with pytest.raises(UserError, match=r"class 'zebra' is new.*the names and the order"):
        scores(run, f"data.train_path={tmp_path}/here/train")


def relabel(folder):
    (folder / "train/class0/0.png").rename(folder / "train/class1/x.png")
    (folder / "train/class1/0.png").rename(folder / "train/class0/0.png")


def remove(folder):
    (folder / "train/class0/0.png").unlink()


def repaint(folder):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "train/class1/2.png")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (relabel, "some pictures are others"),
        (remove, "22 images then, 21 now"),
        (repaint, "some pictures are others"),
    ],
)
def test_other_training_data_are_told_and_can_be_a_bank(change, text, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "here")
    run = pretrain(config(tmp_path / "here", output_dir=str(tmp_path / "run")))
    change(tmp_path / "here")
    with pytest.raises(UserError, match=f"not those of its training: {text}"):
        scores(run)
    results = scores(run, f"data.train_path={tmp_path}/here/train")
    assert results.class_counts == list(COUNTS)
    assert f"other data than those of the training ({text}" in results.notes[0]


def test_corrected_labels_of_a_list_are_told(home):
    lines = [f"train/class{c}/{i}.png {c}" for c, n in enumerate(COUNTS) for i in range(n)]
    (home / "list.txt").write_text("\n".join(lines))
    changes = {"data__format": "file_list", "data__train_path": "list.txt"}
    run = pretrain(config(home, **changes, data__val_path="list.txt", output_dir="listed"))
    lines[0], lines[12] = lines[0][:-1] + "1", lines[12][:-1] + "0"  # as many of each as before
    (home / "list.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match="some images have other labels"):
        scores(run)


def test_test_images_may_come_after_the_training(home, caplog):
    with caplog.at_level(logging.WARNING, logger="ltplugins"):
        run = pretrain(config(home, data__val_path=None, output_dir="late"))
    assert "data.val_path names no test images: ltplugins evaluate will need" in caplog.text
    with pytest.raises(UserError, match=r"Give some: ltplugins evaluate late data.val_path=PATH"):
        scores(run)
    assert scores(run, "data.val_path=val").sizes.test == 12
    with pytest.raises(UserError, match="no such folder: nowhere"):
        scores(run, "data.val_path=nowhere")


def test_one_class_alone_is_told_before_the_training(home, caplog):
    write_folder(home / "album", (12,), size=16)
    with caplog.at_level(logging.WARNING, logger="ltplugins"):
        pretrain(config(home, data__train_path="album", data__val_path=None, output_dir="one"))
    assert "all training images are of one class, 'class0': no accuracy" in caplog.text


def test_a_run_without_its_training_images_is_scored_on_a_probe_set(home):
    write_folder(home / "probe", (5, 5, 5), size=16, seed=9)
    whole = scores("run", *HERE, "data.probe_path=probe")
    shutil.rmtree(home / "train")
    assert overall(scores("run", "data.val_path=val", "data.probe_path=probe")) == overall(whole)
    assert "the balanced probe set (15 images)" in whole.protocols[KNN].description
    with pytest.raises(UserError, match="no such folder"):
        scores("run", *HERE)


def test_a_training_without_labels(home, caplog):
    (home / "pool").mkdir()
    for i, file in enumerate(sorted((home / "train").rglob("*.png"))):
        shutil.copy(file, home / f"pool/{i:02d}.png")
    changes = {"data__no_labels": True, "data__train_path": "pool", "data__val_path": "val"}
    with caplog.at_level(logging.WARNING, logger="ltplugins"):
        run = pretrain(config(home, **changes, output_dir="pooled"))
    assert "no labels: ltplugins evaluate will need labelled ones" in caplog.text
    with pytest.raises(
        UserError, match=r"Give labelled ones: ltplugins evaluate pooled data.probe"
    ):
        scores(run)
    shutil.rmtree(home / "val/class1")  # its absence must not move the number of class2
    results = scores(run, "data.probe_path=train")
    assert results.class_names == ["class0", "class1", "class2"]
    assert results.class_counts == [0, 0, 0]
    assert results.sizes.train == 22
    few = results.protocols[KNN].groups["tercile"]["few"]
    assert few.mean is None
    assert results.test_counts == [4, 0, 4]
    assert "the training images have no labels" in results.notes[0]


def test_a_damaged_training_image_is_left_out_of_the_bank(home):
    with open(home / "train/class1/3.png", "r+b") as f:
        f.truncate(60)
    changes = {"data__on_corrupt": "skip", "data__train_path": "train", "data__val_path": "val"}
    run = pretrain(config(home, **changes, output_dir="skipped"))
    results = scores(run)
    assert "(21 images), 4 to 12 a class" in results.protocols[KNN].description
    with pytest.raises(UserError, match=r"corrupt image: .*3.png .*bank: data.on_corrupt=skip"):
        scores(run, "data.on_corrupt=fail")
    shutil.copy(home / "train/class1/3.png", home / "val/class1/0.png")
    with pytest.raises(UserError, match=r"corrupt image: .*val/class1/0.png .*remove the file\.$"):
        scores(run)


def test_a_missing_probe_list_is_told_before_the_training(home, caplog):
    with caplog.at_level(logging.WARNING, logger="ltplugins"):
        run = pretrain(config(home, data__probe_path="nowhere", output_dir="probed"))
    assert "data.probe_path cannot be used: no such folder: nowhere" in caplog.text
    assert "or set data.probe_path=null" in caplog.text
    assert overall(scores(run, "data.probe_path=train")) >= 0


def test_what_worked_is_written(home, caplog):
    cfg = compose_packaged("evaluate", ["run=run", "eval.knn.k=3", "device=cpu"])
    OmegaConf.update(cfg, "data", {"train_path": "train", "val_path": "val"}, force_add=True)
    usual = evaluate(cfg)
    assert list(usual.protocols) == [KNN, "linear_4shot"]
    assert "class 'class2' has 4 labelled images" in usual.notes[-1]
    cfg.eval.linear.shots = [100]
    with caplog.at_level(logging.WARNING, logger="ltplugins"):
        results = evaluate(cfg)
    assert list(results.protocols) == [KNN, "linear_4shot"]  # the second of the one before
    assert "class 2 has 4. Set eval.linear.shots=[4] or [full]" in results.failed["linear_100shot"]
    assert "linear_100shot is left out: a 100-shot probe needs" in caplog.text
    assert Results.read(home / "run/results.json") == results


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("device=gpu", "device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("device=cuda:99", "device: expected one that is here, got 'cuda:99'"),
        ("data.val_paht=val", "unknown key 'data.val_paht'. Did you mean 'val_path'"),
    ],
)
def test_wrong_values_are_one_line(word, text, home):
    with pytest.raises(UserError, match=text):
        scores("run", word)


def test_a_set_by_name_takes_no_paths(tmp_path):
    from ltplugins.config.data import DataPaths
    from ltplugins.data.schema import DataConfig

    with pytest.raises(UserError, match=r"data.val_path: expected nothing, for cifar10 brings"):
        DataPaths(val_path="val").over(DataConfig("cifar10"))
    assert DataPaths(train_path="x").over(DataConfig("cifar10")).train_path == "x"


def test_results_go_elsewhere_where_the_run_cannot_be_written(trained, tmp_path, monkeypatch):
    run, out = trained / "run", tmp_path / "new/results"
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    words = ("eval.health=null",)
    assert scores(run, *words, f"out={out}").method == "simclr"
    assert Results.read(out / "results.json").method == "simclr"
    assert list((out / "features").iterdir())
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
    found = gather_run(out)  # a report can be made of it
    assert found.info["host"] == found.results.host
    of_run, apart = (OmegaConf.to_container(RunFolder(path).config()) for path in (run, out))
    assert experiment(apart) == experiment(of_run)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"run cannot be written.*out=FOLDER"):
        scores(run, *words)
