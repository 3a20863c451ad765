# SPDX-License-Identifier: MIT
"""An exported folder opens without this package and gives the same features, or is not written."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ltplugins
from ltplugins.cli import main
from ltplugins.core.errors import UserError
from ltplugins.stages.pretrain import pretrain
from ltplugins.zoo import onnx as onnx_room
from ltplugins.zoo.export import export
from ltplugins.zoo.load import load_backbone
from tests.kit.hosts import on_the_stand_in
from tests.kit.tiny import tiny_config

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def features(model, images):
    with torch.no_grad():
        return model(images)


def same_features(model, other, count=7):
    images = model.noise(count)
    return torch.equal(features(model, images), features(other, images))


def by_timm(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


NETWORKS = {
    "test_resnet": {},
    "resnet18": {},
    "vit_tiny": {
        "backbone__kwargs": {"depth": 1, "embed_dim": 24, "num_heads": 2},
        "augmentations": [{"crop_size": 28, "num_crops": 2}],
    },
    "convnext_atto": {
        "backbone__kwargs": {"patch_size": 2, "depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
        "augmentations": [{"crop_size": 32, "num_crops": 2}],
    },
    "mobilenetv3_small_050": {"augmentations": [{"crop_size": 64, "num_crops": 2}]},
}


@on_the_stand_in
@pytest.mark.parametrize("name", NETWORKS)
def test_timm_gives_the_same_features(tmp_path, name):
    changes = {"backbone__name": name, "max_epochs": 1, "limit_train_batches": 1}
    run = pretrain(tiny_config(tmp_path, "simclr", **changes, **NETWORKS[name]))
    folder = export(run, tmp_path / "entry")
    model, other = load_backbone(run), by_timm(folder)
    assert same_features(model, other)
    assert other.num_classes == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["num_features"] == model.num_features == features(model, model.noise(1)).shape[1]
    assert config["ltplugins"]["origin"]["method"] == "simclr"


@on_the_stand_in
def test_what_a_training_drops_is_no_part_of_the_network(tmp_path):
    """Who trains the entry on would drop as much without having asked for it."""
    words = dict(NETWORKS["vit_tiny"])
    rates = {"patch_drop_rate": 0.5, "drop_path_rate": 0.2}
    words["backbone__kwargs"] = {**words["backbone__kwargs"], **rates}
    changes = {"backbone__name": "vit_tiny", "max_epochs": 1, "limit_train_batches": 1}
    run = pretrain(tiny_config(tmp_path, "simclr", **changes, **words))
    other = by_timm(export(run, tmp_path / "entry"))
    assert other.patch_embed.patch_size == (4, 4)  # the other arguments are there
    images = load_backbone(run).noise(4)
    in_eval = features(other, images)
    assert torch.equal(features(other.train(), images), in_eval)
    trained = load_backbone(run).net.train()  # whereas the run goes on as it was
    assert not torch.allclose(features(trained, images), in_eval)


@on_the_stand_in
def test_timm_sees_pictures_as_the_evaluation_does(tiny_run, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    model, other = load_backbone(tiny_run), by_timm(export(tiny_run, tmp_path / "entry"))
    config = timm.data.resolve_model_data_config(other)
    assert torch.equal(timm.data.create_transform(**config)(picture), model.transform(picture))


@on_the_stand_in
def test_a_head_of_ones_own_and_other_channels(tiny_run, tmp_path):
    """``classifier`` and ``first_conv`` are what timm needs to know for these."""
    folder = export(tiny_run, tmp_path / "entry")
    images = torch.zeros(2, 1, 16, 16)
    other = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5, in_chans=1)
    assert other(images).shape == (2, 5)


@on_the_stand_in
def test_an_entry_is_opened_again(tiny_run, tmp_path):
    folder = export(tiny_run, tmp_path / "entry")
    model, entry = load_backbone(tiny_run), load_backbone(folder)
    assert same_features(model, entry) and entry.skipped == []
    assert entry.provenance == model.provenance
    assert entry.num_features == model.num_features
    assert repr(entry.transform) == repr(model.transform)
    again = export(folder, tmp_path / "again")
    for name in ("config.json", "README.md"):
        assert (again / name).read_text() == (folder / name).read_text()
    modes = {file.stat().st_mode for file in folder.iterdir()}
    assert len(modes) == 1  # whoever may read one may read all
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_timms_own_folder_opens(tmp_path):
    """An entry of timm's, with a head, in which nothing is ours."""
    net = timm.create_model("test_resnet", num_classes=4)
    timm.models.save_for_hf(net, tmp_path / "hub", safe_serialization=True)
    model = load_backbone(tmp_path / "hub")
    assert model.skipped == ["fc.bias", "fc.weight"] and model.size == 160
    net.reset_classifier(0)
    assert same_features(model, net.eval())


def run_page(folder):
    """Run each block of the folder's page, from inside it, where this package is not imported."""
    (picture := Image.new("RGB", (20, 20), (9, 99, 199))).save(folder / "picture.png")
    tail = "\nimport sys\nassert 'ltplugins' not in sys.modules"
    blocks = BLOCK.findall((folder / "README.md").read_text())
    for at, block in enumerate(blocks):
        keep = ""
        if "onnxruntime" in block:
            keep = "\nassert features.shape[0] == 1"
        else:
            keep = f"\nimport torch\ntorch.save(model.state_dict(), 'kept{at}.pt')"
        code = block + keep + tail
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[-1500:]
    return picture, blocks


@pytest.fixture
def onnx():
    """Its libraries, which the environment of the oldest versions does not have."""
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    return pytest.importorskip("onnxruntime")


@pytest.mark.slow
@on_the_stand_in
def test_the_lines_of_the_page_open_it(tiny_run, tmp_path, onnx):
    folder = export(tiny_run, tmp_path / "entry", ["timm", "onnx"])
    _, blocks = run_page(folder)
    assert len(blocks) == 2
    own = load_backbone(tiny_run).net.state_dict()
    kept = torch.load(folder / "kept0.pt", weights_only=True)
    assert all(torch.equal(kept[key], value) for key, value in own.items())


def test_the_small_stem_by_torchvision(small_stem_run, tmp_path):
    """timm refuses the folder, rather than building a network with another stem."""
    folder = export(small_stem_run, tmp_path / "small", ["torchvision"])
    model, entry = load_backbone(small_stem_run), load_backbone(folder)
    assert model.architecture.small_stem and same_features(model, entry)
    with pytest.raises(Exception, match="architecture"):
        by_timm(folder)
    names: dict = {}
    (block,) = BLOCK.findall((folder / "README.md").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(block, names)
    assert same_features(model, names["model"])


@pytest.mark.slow
@pytest.mark.parametrize("which", ["tiny_run", "small_stem_run"])
def test_onnx_takes_any_batch(which, tmp_path, request, onnx):
    run = request.getfixturevalue(which)
    folder = export(run, tmp_path / "onnx", ["onnx"])
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.onnx"]
    session = onnx.InferenceSession(folder / "model.onnx")
    model = load_backbone(run)
    for count in (1, 3, 8):
        images = model.noise(count)
        (found,) = session.run(["features"], {"images": images.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(found), features(model, images), rtol=1e-4, atol=1e-4
        )
    seen = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert seen["input_size"] == [3, model.size, model.size]
    assert seen["mean"] == pytest.approx(list(model.transform.mean))
    with pytest.raises(UserError, match="names no architecture"):
        load_backbone(folder)


@pytest.mark.slow
def test_onnx_with_other_features_is_not_written(tiny_run, tmp_path, monkeypatch, onnx):
    monkeypatch.setattr(onnx_room, "_TOLERANCE", -1.0)
    with pytest.raises(UserError, match="as ONNX gives other features"):
        export(tiny_run, tmp_path / "x", ["onnx"])
    assert list(tmp_path.iterdir()) == []


# --- what cannot be written ---


def test_a_small_stem_is_refused_with_the_way_out(small_stem_run, tmp_path):
    with pytest.raises(UserError, match=r"resnet18 has the small stem.*--onnx or --torchvision"):
        export(small_stem_run, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@on_the_stand_in
def test_timms_small_stem_leaves_onnx_alone(tmp_path):
    run = pretrain(
        tiny_config(tmp_path, "simclr", backbone__small_stem=True, max_epochs=1,
                    limit_train_batches=1)
    )  # fmt: skip
    with pytest.raises(UserError, match=r"test_resnet has the small stem.*--onnx, or train"):
        export(run, tmp_path / "x")
    with pytest.raises(UserError, match="--torchvision: expected a backbone of torchvision's"):
        export(run, tmp_path / "x", ["torchvision"])
    assert not (tmp_path / "x").exists()


def test_a_network_that_timm_builds_otherwise_is_refused(tiny_run, tmp_path, monkeypatch):
    real = timm.create_model

    def other(name, *args, **kwargs):
        net = real(name, *args, **kwargs)
        if "local-dir" in name:
            next(net.parameters()).data += 1
        return net

    monkeypatch.setattr(timm, "create_model", other)
    with pytest.raises(UserError, match=r"gives other features\. Take --onnx"):
        export(tiny_run, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_one_line(tmp_path, monkeypatch, name, capsys, onnx):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as end:
        main(["export", "no/such/run", str(tmp_path / "x"), "--onnx"])
    assert end.value.code == 2
    assert f"{name} is not installed" in capsys.readouterr().err


def test_the_folder_must_be_free_and_writable(tiny_run, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    for target, text in ((taken, "exists"), (taken / "mine.txt/below", "can be written")):
        with pytest.raises(SystemExit) as end:
            main(["export", str(tiny_run), str(target)])
        message = capsys.readouterr().err
        assert end.value.code == 2 and text in message and message.count("\n") == 1
    assert (taken / "mine.txt").read_text() == "mine"


def test_the_command(tiny_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    form = (
        [] if ltplugins.load_backbone(tiny_run).architecture.name == "test_resnet" else ["--timm"]
    )
    main(["export", str(tiny_run), str(tmp_path / "empty"), *form])
    assert "config.json" in capsys.readouterr().out
    assert (tmp_path / "empty/model.safetensors").exists()


# --- a folder that is damaged, or means harm ---


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def flipped(folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def of_another(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("bn1.weight")
    save_file(tensors, folder / "model.safetensors")
    change(folder, lambda config: config.pop("ltplugins"))


def change(folder, how):
    config = json.loads((folder / "config.json").read_text())
    how(config)
    (folder / "config.json").write_text(json.dumps(config))


def cut(folder):
    file = folder / "config.json"
    file.write_text(file.read_text()[:50])


DAMAGES = [
    (without_weights, "has no weights"),
    (flipped, "damaged: its sha256"),
    (of_another, "1 keys missing"),
    (cut, "is no JSON"),
    (lambda f: change(f, lambda c: c.update(architecture="test_resnett")), "Did you mean"),
    (lambda f: change(f, lambda c: c.update(architecture="hf-hub:x/y")), "a name of timm's"),
    (lambda f: change(f, lambda c: c.update(model_args=[1])), "model_args: expected a block"),
    (lambda f: change(f, lambda c: c.update(model_args={"x": 1})), "cannot be built"),
    (
        lambda f: change(f, lambda c: c.update(model_args={"checkpoint_path": "/x"})),
        r"model_args\.checkpoint_path: expected arguments of the network",
    ),
    (lambda f: change(f, lambda c: c.pop("pretrained_cfg")), "does not say how it sees"),
    (
        lambda f: change(f, lambda c: c["pretrained_cfg"].update(input_size=[3, 8, 9])),
        "expected square ones",
    ),
    *[
        (lambda f, seen=seen: change(f, lambda c: c["pretrained_cfg"].update(seen)), text)
        for seen, text in (
            ({"crop_pct": 0}, "crop_pct: expected a number from"),
            ({"crop_pct": -1}, "crop_pct: expected a number from"),
            ({"mean": [0.5, 0.5]}, "mean: expected a list of 3 numbers"),
            ({"std": [0.5, 0, 0.5]}, r"std\[1\]: expected a number above 0"),
            ({"input_size": [3, 0, 0]}, r"input_size\[1\]: expected a whole number"),
            ({"interpolation": "none"}, "interpolation: expected one of bilinear"),
        )
    ],
    (lambda f: change(f, lambda c: c.update(pretrained_cfg=[1])), "expected a block of keys"),
    (lambda f: change(f, lambda c: c["ltplugins"].update(version=99)), "Update ltplugins"),
    (lambda f: change(f, lambda c: c["ltplugins"].update(extra=1)), "is damaged, or of another"),
]


@on_the_stand_in
@pytest.mark.parametrize(("damage", "text"), DAMAGES)
def test_a_damaged_entry_is_one_line(tiny_run, tmp_path, damage, text):
    folder = export(tiny_run, tmp_path / "entry")
    damage(folder)
    with pytest.raises(UserError, match=text) as error:
        load_backbone(folder)
    assert "\n" not in str(error.value)
