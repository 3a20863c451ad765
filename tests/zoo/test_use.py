# SPDX-License-Identifier: MIT
"""``zoo://NAME`` stands wherever a checkpoint does, and gives what the run itself gives."""

import shutil

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.cli import main
from ltplugins.core.errors import UserError
from ltplugins.eval.results import Results
from ltplugins.host.pretrained import load_pretrained
from ltplugins.methods.parts.teacher import Teacher
from ltplugins.runs.checkpoint import open_finished, open_run
from ltplugins.stages import pretrain as stage
from ltplugins.stages.balance import balance
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.finetune import finetune
from ltplugins.stages.segment import segment
from ltplugins.zoo.load import load_backbone
from tests.kit.entries import EVAL
from tests.kit.hosts import on_the_stand_in
from tests.kit.masks import write_masks
from tests.kit.tiny import tiny_config

pytestmark = on_the_stand_in
ENTRY = "zoo://tiny"


@pytest.fixture(autouse=True)
def at_work(made_zoo, tmp_path, monkeypatch):
    """A working folder of its own, where the zoo is the made one."""
    monkeypatch.setenv("LTPLUGINS_ZOO", str(made_zoo))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def paths(tiny_run):
    """Where the images of the tiny run lie: an entry keeps no places of a machine."""
    parts = {"train": "train", "val": "test"}
    return [f"+data.{key}_path='{tiny_run.parent / name}.npz'" for key, name in parts.items()]


def test_load_backbone(tiny_run):
    model, other = load_backbone(ENTRY), load_backbone(tiny_run)
    assert torch.equal(model(model.noise(3)), other(model.noise(3)))
    assert model.provenance.origin == other.provenance.origin


def test_features(tiny_run):
    images = str(tiny_run.parent / "test.npz")
    for source, out in ((ENTRY, "zoo.npz"), (str(tiny_run), "run.npz")):
        main(["features", source, images, "--out", out, "--device", "cpu"])
    with np.load("zoo.npz") as one, np.load("run.npz") as two:
        assert np.array_equal(one["features"], two["features"])


def test_evaluate_gives_the_runs_numbers(tiny_run, made_zoo, paths, tmp_path):
    before = sorted(made_zoo.rglob("*"))
    evaluate(compose_packaged("evaluate", [f"run='{ENTRY}'", *paths, *EVAL]))
    found = Results.read(tmp_path / "runs/zoo/tiny/results.json")
    assert found.protocols == Results.read(tiny_run / "results.json").protocols
    assert sorted(made_zoo.rglob("*")) == before  # nothing is written into the zoo


def test_the_command_line_takes_it(tiny_run, paths, tmp_path):
    main(["evaluate", ENTRY, *paths, *EVAL])
    assert (tmp_path / "runs/zoo/tiny/results.json").exists()


def test_continued_pretraining_starts_from_it(tmp_path, monkeypatch):
    started = []

    def load(model, cfg):
        load_pretrained(model, cfg)
        started.append({k: v.clone() for k, v in model.backbone.state_dict().items()})

    monkeypatch.setattr(stage, "load_pretrained", load)
    changes = {"max_epochs": 1, "limit_train_batches": 1, "backbone__pretrained": ENTRY}
    run = stage.pretrain(tiny_config(tmp_path, "simclr", **changes))
    theirs = load_backbone(ENTRY).net.state_dict()
    assert theirs.keys() == started[0].keys()
    assert all(torch.equal(started[0][key], value) for key, value in theirs.items())
    assert open_run(run).cfg.backbone.pretrained == ENTRY


def test_finetune(paths, tmp_path):
    words = [f"run='{ENTRY}'", *paths, "mode=linear", "epochs=1", "batch_size=8"]
    out = finetune(compose_packaged("finetune", [*words, "accelerator=cpu"]))
    assert str(out) == "runs/zoo/tiny-linear"
    content = torch.load(out / "checkpoints/last.ckpt", weights_only=True)
    assert content["ltplugins"]["stage_1"]["run"] == ENTRY
    theirs = load_backbone(ENTRY).net.state_dict()
    assert all(torch.equal(content["state_dict"][f"backbone.{k}"], v) for k, v in theirs.items())
    name = [f"+backbone.name='{ENTRY}'", "output_dir=other"]
    other = finetune(compose_packaged("finetune", [*words, *name, "accelerator=cpu"]))
    assert Results.read(other / "results.json").method == "simclr+linear"


def test_segment(tmp_path):
    pytest.importorskip("segmentation_models_pytorch")
    cfg = compose_packaged("segment", [f"run='{ENTRY}'"])
    given = {
        "data.format": "folder", "data.path": str(write_masks(tmp_path / "masks", 4, 1)),
        "epochs": 1, "batch_size": 4, "views.crop": 64, "val_every": 0, "pictures": 0,
        "accelerator": "cpu",
        "decoder": {"name": "unet", "kwargs": {"decoder_channels": [8, 8, 8, 8, 8]}},
    }  # fmt: skip
    for key, value in given.items():
        OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    out = segment(cfg)
    assert str(out) == "runs/segment/tiny-unet"
    content = torch.load(out / "checkpoints/last.ckpt", weights_only=True)
    assert content["ltplugins"]["stage_1"]["run"] == ENTRY


def test_a_teacher(tiny_run):
    teacher = Teacher(ENTRY, "method_kwargs.teacher")
    images = torch.randn(2, 3, 16, 16)
    # The run's network has training's memory format, which gives other last bits.
    torch.testing.assert_close(teacher.feats(images), Teacher(str(tiny_run), "x").feats(images))
    assert not teacher.has_classifier and teacher.num_classes == 3


def test_where_it_cannot_stand(tmp_path):
    with pytest.raises(UserError, match=r"resume_from_checkpoint.*backbone\.pretrained=zoo://tiny"):
        stage.pretrain(tiny_config(tmp_path, "simclr", resume_from_checkpoint=ENTRY))
    with pytest.raises(UserError, match=r"holds a backbone alone.*ltplugins finetune zoo://tiny"):
        balance(compose_packaged("balance", [f"run='{ENTRY}'"]))


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "zoo://tinny"],
        ["finetune", "zoo://tinny"],
        ["segment", "zoo://tinny"],
        ["features", "zoo://tinny", "fashion_pack", "--out", "x.npz"],
        ["export", "zoo://tinny", "x"],
        ["pretrain", "backbone.pretrained=zoo://tinny", "output_dir=x", "accelerator=cpu"],
        ["zoo", "info", "tinny"],
        ["zoo", "get", "tinny"],
    ],
    ids=lambda words: words[0],
)
def test_a_misspelt_name_is_one_line(words, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        main(words)
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert "no such entry" in message and "Did you mean 'tiny'" in message
    assert message.strip().count("\n") == message.count("WARNING") + message.count("INFO")


def test_an_export_without_a_training_is_told(made_zoo, tiny_run, tmp_path):
    main(["export", str(tiny_run), "plain"])
    with pytest.raises(UserError, match="says nothing of a training: expected an entry"):
        open_run("plain")
    shutil.copytree(made_zoo / "tiny", tmp_path / "copy")
    assert open_finished(tmp_path / "copy", "finetune").path.name == "copy"
