# SPDX-License-Identifier: MIT
"""Segmentation as a stage: its numbers, an exact resume, and one line for what does not fit."""

import json
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.downstream.segmentation.examples import read_examples
from ltplugins.downstream.segmentation.options import SegmentConfig
from ltplugins.downstream.segmentation.results import SegmentResults
from ltplugins.downstream.segmentation.scores import pixel_scores
from ltplugins.runs.metrics import read_metrics
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.pretrain import pretrain
from ltplugins.stages.report import report
from ltplugins.stages.segment import segment
from tests.kit import forked
from tests.kit.masks import write_masks
from tests.kit.runs import interrupted, load
from tests.kit.tiny import tiny_config

SMALL = {"name": "unet", "kwargs": {"decoder_channels": [16, 16, 8, 8, 8]}}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run of SimCLR; every test reads it, none changes it."""
    folder = tmp_path_factory.mktemp("first")
    return pretrain(tiny_config(folder, "simclr", max_epochs=1, output_dir=str(folder / "simclr")))


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return write_masks(tmp_path_factory.mktemp("masks"))


def config(run, masks, out, **changes):
    """Two epochs of two batches on eight images of three coloured stripes."""
    cfg = compose_packaged("segment", [f"run={run}", f"output_dir={out}"])
    given = {
        "data.format": "folder", "data.path": str(masks), "decoder": SMALL, "epochs": 2,
        "batch_size": 4, "views.crop": 64, "views.scale": [0.8, 1.2], "val_every": 0, "pictures": 2,
        "accelerator": "cpu", **changes,
    }  # fmt: skip
    for key, value in given.items():
        OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    return cfg


def state_of(path):
    return load(path / "checkpoints/last.ckpt")


def assert_same(a, b):
    """Weights, optimiser and schedule, logged metrics and numbers, bit for bit."""
    one, two = state_of(a), state_of(b)
    for key, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][key]), key
    states = [c["optimizer_states"][0]["state"] for c in (one, two)]
    for key, value in states[0].items():
        assert torch.equal(value["exp_avg_sq"], states[1][key]["exp_avg_sq"])
    assert one["lr_schedulers"] == two["lr_schedulers"]
    assert read_metrics(a / "metrics.csv") == read_metrics(b / "metrics.csv")
    found = [SegmentResults.read(path / "results.json") for path in (a, b)]
    assert found[0].confusion == found[1].confusion


def test_it_learns_and_says_how_well(first, masks, tmp_path):
    cfg = config(
        first, masks, tmp_path / "out", epochs=12, lr=0.01, encoder_rate=1.0,
        **{"views.hue": 0.0, "views.scale": [1.0, 1.0]},
    )  # fmt: skip
    path = segment(cfg)
    found = SegmentResults.read(path / "results.json")
    assert found.method == "simclr+unet"
    assert found.miou > 0.6 and found.epochs == 12
    matrix = torch.tensor(found.confusion)
    assert int(matrix.sum()) == 4 * 64**2
    assert found.image_counts == [8, 8, 8]
    assert sum(found.pixel_counts) == 8 * 64**2 - 4 * 64
    scores = pixel_scores(matrix, found.image_counts, found.pixel_counts)
    assert {key: getattr(found, key) for key in scores} == scores
    examples = read_examples(path / "examples.npz")
    assert len(examples) == 2 and (path / "segmentation.png").stat().st_size > 1000
    assert (examples[0].truth == examples[0].found).mean() > 0.5
    facts = json.loads((path / "run.json").read_text())
    assert facts["finished"] and facts["stage_1"]["run"] == str(first)
    losses = read_metrics(path / "metrics.csv")["train_segment_loss_epoch"][1]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "changes",
    [{}, {"freeze": True, "loss": {"ce": 1.0, "dice": 0.5}, "decoder": "deeplabv3plus"}],
)
def test_a_resumed_stage_equals_the_unbroken_one(changes, first, masks, tmp_path, monkeypatch):
    whole = segment(config(first, masks, tmp_path / "whole", epochs=3, **changes))
    cfg = config(first, masks, tmp_path / "broken", epochs=3, **changes)
    interrupted(cfg, 1, 1, monkeypatch, stage=segment)
    assert not (tmp_path / "broken/results.json").exists()
    assert_same(whole, segment(cfg))


def test_again_is_nothing_and_other_settings_are_refused(first, masks, tmp_path):
    cfg = config(first, masks, tmp_path / "out", epochs=1)
    path = segment(cfg)
    before = (path / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert segment(cfg) == path
    assert (path / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"segment.lr: 0.001 there, 0.5 here"):
        segment(config(first, masks, path, epochs=1, lr=0.5))
    with pytest.raises(UserError, match="is the run itself"):
        segment(config(first, masks, first))


def test_a_frozen_encoder_stays_as_it_was(first, masks, tmp_path):
    paths = {
        freeze: segment(config(first, masks, tmp_path / str(freeze), epochs=1, freeze=freeze))
        for freeze in (True, False)
    }
    start = {k.removeprefix("backbone."): v for k, v in state_of(first)["state_dict"].items()}
    for freeze, path in paths.items():
        state = state_of(path)["state_dict"]
        inner = {k: v for k, v in state.items() if k.startswith("net.net.encoder.model.")}
        same = [torch.equal(v, start[k.removeprefix("net.net.encoder.model.")])
                for k, v in inner.items()]  # fmt: skip
        assert len(same) > 30
        assert all(same) if freeze else not any(same)


def test_seeded_and_from_scratch(first, masks, tmp_path):
    kinds = {"a": {}, "b": {}, "c": {"seed": 1}}
    found = {
        name: segment(config(first, masks, tmp_path / name, epochs=1, weights="random", **changes))
        for name, changes in kinds.items()
    }
    assert_same(found["a"], found["b"])
    keys = [state_of(found[name])["state_dict"] for name in "ac"]
    assert not all(torch.equal(v, keys[1][k]) for k, v in keys[0].items())
    results = SegmentResults.read(found["a"] / "results.json")
    assert results.method == "random test_resnet+unet"
    assert results.encoder["weights"] == "random"


def test_validation_on_land_and_its_split(first, tmp_path):
    keys = {
        "data.format": "land_pack", "data.path": None, "data.stride": 128, "views.crop": None,
        "views.scale": None, "batch_size": 32, "epochs": 1, "val_every": 1, "data.fold": 2,
    }  # fmt: skip
    path = segment(config(first, None, tmp_path / "out", **keys))
    assert "val_miou" in read_metrics(path / "metrics.csv")
    found = SegmentResults.read(path / "results.json")
    assert "fold 2 of 5" in found.data["description"]
    assert len(found.class_names) == 17
    unseen = (torch.tensor(found.confusion).sum(1) == 0).nonzero().flatten().tolist()
    assert found.absent == unseen


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"decodr": "fpn"}, r"unknown key 'decodr'. Did you mean 'decoder'"),
        ({"decoder": "unett"}, r"decoder.name: expected one of unet, .*got 'unett'.*"),
        ({"decoder": "dpt"}, "^decoder: expected unet, .*linear for test_resnet.*got dpt"),
        (
            {"decoder": {"name": "fpn", "kwargs": {"x": 1}}},
            "^decoder: fpn does not fit test_resnet",
        ),
        ({"loss": {"ce": 0.0}}, r"loss.ce: expected a weight above 0 of one of ce"),
        ({"batch_size": 16}, "^batch_size: fewer images than the batch: there are 8"),
        ({"data.num_classes": 2}, r"expected labels from 0 to 1, or 255 for no class, got 2"),
        ({"data.path": "/nothing"}, "^data.path: expected the folder of a set of format folder"),
        ({"epochs": 0}, "^epochs: expected a whole number of 1 or more"),
        ({"data.format": "land_pack", "data.path": None, "data.fold": 9}, "^data.fold: expected a"),
        ({"views.scale": [2.0, 1.0]}, r"views.scale: expected \[min, max\]"),
    ],
)
def test_bad_input_is_named(changes, text, first, masks, tmp_path):
    with pytest.raises(UserError, match=text) as error:
        segment(config(first, masks, tmp_path / "out", **changes))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("word", "weights"),
    [
        ("loss=lovasz", {"lovasz": 1.0}),
        ("loss={dice: 1}", {"dice": 1.0}),  # and not beside a default
        ("loss={ce: 1, dice: 0.5}", {"ce": 1.0, "dice": 0.5}),
    ],
)
def test_losses_on_the_command_line(word, weights):
    cfg = compose_packaged("segment", ["run=x", word])
    options = parse(SegmentConfig, OmegaConf.to_container(cfg), "")
    assert options.loss.weights == weights


def test_the_yaml_holds_the_defaults():
    cfg = compose_packaged("segment", ["run=x"])
    assert parse(SegmentConfig, OmegaConf.to_container(cfg), "") == SegmentConfig(run="x")


def test_no_model_is_refused(masks, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="run is missing: ltplugins segment RUN"):
        segment(compose_packaged("segment", []))
    with pytest.raises(UserError, match=r"does not exist. Give a run's folder"):
        segment(config(tmp_path / "nothing", masks, tmp_path / "out"))
    run = pretrain(tiny_config(tmp_path, "simclr", max_epochs=1))
    (run / "checkpoints/last.ckpt").unlink()
    with pytest.raises(UserError, match=r"holds no weights: .* was removed"):
        segment(config(run, masks, tmp_path / "out"))
    interrupted(
        tiny_config(tmp_path, "simclr", max_epochs=2, output_dir=str(tmp_path / "half")),
        1,
        0,
        monkeypatch,
    )
    with pytest.raises(UserError, match="is not finished: it has 1 epochs"):
        segment(config(tmp_path / "half", masks, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_takes_pretrainings_refuses_it(first, masks, tmp_path):
    path = segment(config(first, masks, tmp_path / "out", epochs=1, pictures=0))
    assert not (path / "segmentation.png").exists()
    with pytest.raises(UserError, match=r"is a segmentation \(ltplugins segment\)"):
        evaluate(compose_packaged("evaluate", [f"run={path}"]))
    with pytest.raises(UserError, match="is a segmentation, and others of these runs are not"):
        report([path, first], tmp_path / "report")
    page = report([path], tmp_path / "report").read_text()
    assert "simclr+unet" in page and page.count("<svg") == 1  # without examples, IoU alone


def test_command_line(first, masks, tmp_path):
    command = [sys.executable, "-m", "ltplugins.cli", "segment", str(first), "output_dir=out"]
    command += ["data.format=folder", f"data.path={masks}", "epochs=1", "batch_size=4"]
    command += ["views.crop=64", "decoder=linear", "loss=adjusted", "accelerator=cpu"]
    result = forked.run(command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "simclr+linear: mIoU" in result.stdout
    assert "rare" in result.stdout and "Warning" not in result.stderr
    found = SegmentResults.read(tmp_path / "out/results.json")
    assert found.loss == {"adjusted": 1.0, "tau": 1.0}
    assert np.isfinite(found.miou)


def test_two_processes(first, masks, tmp_path):
    """They share the images, sum their gradients, and one of them writes down how it ended."""
    command = [sys.executable, "-m", "ltplugins.cli", "segment", str(first), "output_dir=out"]
    command += ["data.format=folder", f"data.path={masks}", "epochs=1", "batch_size=2", "devices=2"]
    command += ["views.crop=64", "decoder=fpn", "accelerator=cpu", "freeze=true"]
    result = forked.run(command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    facts = json.loads((tmp_path / "out/run.json").read_text())
    assert facts["identity"]["world_size"] == 2 and facts["finished"]
    assert facts["progress"]["steps"] == 2  # eight images, four a step
    found = SegmentResults.read(tmp_path / "out/results.json")
    assert sum(map(sum, found.confusion)) == 4 * 64**2
