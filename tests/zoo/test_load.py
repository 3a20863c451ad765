# SPDX-License-Identifier: MIT
"""Any model is opened as it is evaluated, and says what it left out."""

import json
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

import ltplugins
from ltplugins.core.errors import UserError
from ltplugins.eval.extractor import FeatureExtractor
from ltplugins.eval.parts import Parts
from ltplugins.runs.checkpoint import open_run
from ltplugins.stages.pretrain import pretrain
from ltplugins.zoo import load
from tests.kit.hosts import on_the_stand_in
from tests.kit.tiny import tiny_config, write_arrays, write_folder

CKPT = "checkpoints/last.ckpt"


def evaluated(run):
    """The features that ``ltplugins evaluate`` has of the test images."""
    found = open_run(run)
    return FeatureExtractor(found, Parts(found), "cpu", 256)("test").feats


def seen(model, pictures):
    """The features of pictures of any kind, as one batch."""
    with torch.no_grad():
        return model(torch.stack([model.transform(picture) for picture in pictures]))


def test_features_are_those_of_the_evaluation(tiny_run):
    model = ltplugins.load_backbone(tiny_run)
    with np.load(tiny_run.parent / "test.npz") as test:
        images = test["images"]
    feats = seen(model, images)
    assert torch.equal(feats, evaluated(tiny_run))
    assert feats.shape == (24, model.num_features) and not feats.requires_grad
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    as_tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    assert torch.equal(seen(model, as_tensors), feats)
    assert torch.equal(seen(model, [Image.fromarray(image) for image in images]), feats)


def write_odd(folder):
    """Pictures as they come: sideways, transparent, of 16 bits, grey, of any size."""
    write_folder(folder, (1, 1, 1), size=40)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(folder / "class0/sideways.jpg", exif=exif)
    Image.fromarray(pixels, "RGBA").save(folder / "class1/transparent.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "class2/deep.png")
    Image.fromarray(pixels[..., 0]).save(folder / "class2/grey.png")


@pytest.mark.parametrize("size", [16, 144])
def test_pictures_from_files_are_seen_as_in_the_evaluation(tmp_path, size):
    write_folder(tmp_path / "train", (4, 3, 2), size=20)
    write_odd(tmp_path / "val")
    paths = {f"data__{part}_path": str(tmp_path / part) for part in ("train", "val")}
    run = pretrain(
        tiny_config(
            tmp_path, "simclr", data__format="image_folder", max_epochs=1, limit_train_batches=1,
            data__imbalance=None, augmentations=[{"crop_size": size, "num_crops": 2}], **paths,
        )
    )  # fmt: skip
    found = open_run(run)
    files = Parts(found).source("test").paths
    assert len(files) == 7
    assert torch.equal(seen(ltplugins.load_backbone(run), files), evaluated(run))


def test_what_is_left_out_is_named(tiny_run):
    model = ltplugins.load_backbone(tiny_run / CKPT)
    state = open_run(tiny_run).state
    assert set(model.skipped) == {key for key in state if not key.startswith("backbone.")}
    assert {"classifier.weight", "projector.0.weight"} <= set(model.skipped)
    assert model.provenance.origin.method == "simclr" and model.provenance.epochs == 1


def test_random_generators_are_left_alone(tiny_run):
    states = [], []
    for kept in states:
        torch.manual_seed(3), random.seed(3), np.random.seed(3)
        if kept is states[1]:
            ltplugins.load_backbone(tiny_run)
        kept += [float(torch.rand(1)), random.random(), float(np.random.rand())]
    assert states[0] == states[1]


@on_the_stand_in
@pytest.mark.parametrize("is_old", [False, True], ids=["says its stem", "of before"])
@pytest.mark.parametrize("small", [False, True])
def test_a_run_opens_without_its_images(tmp_path, small, is_old):
    """timm's deep stem does not show its stride; the images' size has chosen it."""
    pixels = np.zeros((20, 16 if small else 100, 16 if small else 100, 3), np.uint8)
    np.savez(tmp_path / "train.npz", images=pixels, labels=np.arange(20) % 2)
    write_arrays(tmp_path / "test.npz", (2, 2))
    run = pretrain(
        tiny_config(
            tmp_path, "simclr", backbone__small_stem=None, max_epochs=1,
            limit_train_batches=1,
        )
    )  # fmt: skip
    if is_old:
        content = torch.load(run / CKPT, weights_only=True)
        assert content["ltplugins"].pop("small_stem") is small
        torch.save(content, run / CKPT)
        assert ltplugins.load_backbone(run).architecture.small_stem is small
    (tmp_path / "train.npz").unlink()
    if is_old:
        with pytest.raises(UserError, match=r"does not say whether .* small stem.*train.npz"):
            ltplugins.load_backbone(run)
        return
    model = ltplugins.load_backbone(run)
    assert model.architecture.small_stem is small
    assert model.net.conv1[0].stride == ((1, 1) if small else (2, 2))


def test_a_checkpoint_of_solo_learns(tiny_run, tmp_path):
    content = torch.load(tiny_run / CKPT, weights_only=True)
    del content["ltplugins"]
    torch.save(content, tmp_path / "simclr-ep=0.ckpt")
    shutil.copy(tiny_run / "checkpoints/args.json", tmp_path)
    model, ours = (ltplugins.load_backbone(p) for p in (tmp_path / "simclr-ep=0.ckpt", tiny_run))
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(model(images), ours(images))
    assert model.provenance.origin is None
    (tmp_path / "args.json").unlink()
    with pytest.raises(UserError, match=r"holds no config.*args\.json"):
        ltplugins.load_backbone(tmp_path / "simclr-ep=0.ckpt")


# --- names of a library ---


def library(monkeypatch, name, **kwargs):
    """Serve random weights of a library's, its head included, as if they had been fetched."""
    net = (
        torchvision.models.get_model(name, weights=None)
        if name in load.RESNETS
        else timm.create_model(name)
    )
    monkeypatch.setattr(load, "library_weights", lambda *_: net.state_dict())
    return net.eval()


def test_torchvisions_weights_and_preprocessing(monkeypatch):
    net = library(monkeypatch, "resnet18")
    model = ltplugins.load_backbone("resnet18")
    assert model.skipped == ["fc.bias", "fc.weight"] and model.num_features == 512
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), np.uint8))
    images = model.transform(picture)[None]
    net.fc = torch.nn.Identity()
    with torch.no_grad():
        assert torch.equal(model(images), net(images))
    official = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    torch.testing.assert_close(images[0], official(picture))


def test_timms_weights_and_preprocessing(monkeypatch):
    net = library(monkeypatch, "test_resnet")
    model = ltplugins.load_backbone("test_resnet")
    assert model.skipped == ["fc.bias", "fc.weight"] and model.num_features == 96
    config = timm.data.resolve_model_data_config(net)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), np.uint8))
    official = timm.data.create_transform(**config)(picture)
    assert torch.equal(model.transform(picture), official)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(official[None]), pre_logits=True)
        assert torch.equal(model(official[None]), expected)


def test_random_weights_are_a_baseline_that_says_so():
    model = ltplugins.load_backbone("test_resnet", pretrained=False)
    assert model.skipped == [] and "random" in model.provenance.label


# --- what is refused ---


def emptied(tiny_run, folder):
    shutil.copytree(tiny_run, folder / "run")
    (folder / "run" / CKPT).unlink()
    return folder / "run"


def no_model(tiny_run, folder):
    return folder


def nowhere(tiny_run, folder):
    return folder / "runs/none"


def misspelt(tiny_run, folder):
    return "test_resnett"


def pickled(tiny_run, folder):
    class Evil:
        def __reduce__(self):
            return (open, (str(folder / "owned"), "w"))

    torch.save({"state_dict": Evil()}, folder / "evil.ckpt")
    return folder / "evil.ckpt"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (emptied, r"has no checkpoint yet|last\.ckpt was removed"),
        (no_model, r"holds no model: expected a run's folder .*config\.json"),
        (nowhere, r"does not exist. Give a run's folder.*zoo://NAME"),
        (misspelt, r"unknown backbone 'test_resnett'. Did you mean 'test_resnet'"),
        (pickled, r"cannot be opened as a checkpoint"),
    ],
)
def test_one_line_says_what_is_wrong(tiny_run, tmp_path, make, text):
    with pytest.raises(UserError, match=text) as error:
        ltplugins.load_backbone(make(tiny_run, tmp_path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "picture",
    [
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 8, 8),
        np.zeros((8, 8, 4), np.uint8),
        7,
    ],
    ids=str,
)
def test_what_is_no_picture_is_refused(tiny_run, picture):
    with pytest.raises(UserError, match="expected one picture"):
        ltplugins.load_backbone(tiny_run).transform(picture)


def test_a_file_that_is_no_picture_is_refused(tiny_run, tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(UserError, match=r"x\.png is no image"):
        ltplugins.load_backbone(tiny_run).transform(tmp_path / "x.png")


def test_the_package_stays_light():
    code = "import json, sys, ltplugins; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ltplugins.no_such_name
