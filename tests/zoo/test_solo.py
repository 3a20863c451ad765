# SPDX-License-Identifier: MIT
"""An entry becomes a checkpoint that solo-learn's own ``main_linear.py`` trains a probe on."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from ltplugins.cli import main
from ltplugins.zoo.backbone import Architecture, Backbone, Provenance
from ltplugins.zoo.export import export, write_forms
from ltplugins.zoo.load import load_backbone
from ltplugins.zoo.solo import CHECKPOINT
from tests.kit.hosts import on_the_stand_in
from tests.kit.solo_yaml import solo_root
from tests.kit.tiny import write_folder

LINEAR = """
hydra: {output_subdir: null, run: {dir: .}}
name: probe
pretrain_method: simclr
backbone: {name: none}
pretrained_feature_extractor: none
data:
  {dataset: custom, train_path: train, val_path: val, format: image_folder, num_workers: 0}
optimizer: {name: sgd, batch_size: 4, lr: 0.1, weight_decay: 0}
scheduler: {name: step, lr_decay_steps: [1]}
checkpoint: {enabled: True, dir: trained, frequency: 1}
auto_resume: {enabled: False}
performance: {disable_channel_last: True}
max_epochs: 1
devices: "1"
accelerator: cpu
strategy: auto
precision: 32
"""


def words_of(page: str) -> list[str]:
    """The command that a folder's page shows for solo-learn, as a shell reads it."""
    block = re.search(r"## solo-learn\n\n```bash\n(.*?)```", page, re.DOTALL)
    assert block
    return shlex.split(block[1].replace("\\\n", " "))


def test_the_checkpoint_holds_tensors_under_their_names(tiny_run, tmp_path):
    main(["export", str(tiny_run), str(tmp_path / "out"), "--solo"])
    content = torch.load(tmp_path / "out" / CHECKPOINT, weights_only=True)
    own = load_backbone(tiny_run).net.state_dict()
    assert content["epoch"] == 1
    assert {f"backbone.{key}" for key in own} == set(content["state_dict"])
    assert all(torch.equal(content["state_dict"][f"backbone.{k}"], v) for k, v in own.items())
    words = words_of((tmp_path / "out/README.md").read_text())
    assert words[0] == "python" and "main_linear.py" in words


def vit(tmp_path: Path) -> Path:
    """A ViT of timm's name that solo-learn knows by a shorter one."""
    model = load_backbone("vit_tiny_patch16_224", pretrained=False)
    kwargs = {"img_size": 224, "patch_size": 32}
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, **kwargs)
    made = Architecture("vit_tiny_patch16_224", kwargs, is_timm=True)
    backbone = Backbone(net, model.transform, 192, made, Provenance("vit"))
    write_forms(backbone, tmp_path / "vit", frozenset({"solo"}))
    return tmp_path / "vit"


def test_timms_name_is_said_as_solo_learn_says_it(tmp_path):
    (tmp_path / "vit").mkdir()
    page = (vit(tmp_path) / "README.md").read_text()
    words = words_of(page)
    assert words[:2] == ["python", "main_linear.py"]
    assert "backbone.name=vit_tiny" in words and "+backbone.kwargs.patch_size=32" in words


@pytest.mark.slow
@pytest.mark.solo
@pytest.mark.parametrize("which", ["entry", "vit"])
def test_main_linear_opens_it(which, tiny_run, tmp_path):
    """Of timm's own networks by ``python -m ltplugins.run``, of solo-learn's by itself alone."""
    root = solo_root()
    if root is None:
        pytest.skip("solo-learn is imported from no source tree")
    (tmp_path / "vit").mkdir()
    folder = vit(tmp_path) if which == "vit" else export(tiny_run, tmp_path / "out", ["solo"])
    for part in ("train", "val"):
        # Its top-5 accuracy crashes on fewer classes, where nobody mends it.
        write_folder(tmp_path / part, (4, 4, 4) if which == "entry" else (2, 2, 2, 2, 2))
    (tmp_path / "linear.yaml").write_text(LINEAR)
    page = (folder / "README.md").read_text()
    given = {
        "main_linear.py": str(root / "main_linear.py"), "python": sys.executable,
        "PATH": str(tmp_path), "FILE": "linear.yaml",
    }  # fmt: skip
    words = [given.get(word, word) for word in words_of(page)]
    words = [word.replace(f"PATH/TO/{CHECKPOINT}", str(folder / CHECKPOINT)) for word in words]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "trained").rglob("*.ckpt")
    found = torch.load(file, map_location="cpu", weights_only=False)["state_dict"]
    own = torch.load(folder / CHECKPOINT, weights_only=True)["state_dict"]
    for key, value in own.items():  # solo-learn loads with strict=False, and says nothing
        assert torch.equal(found[key], value), key


pytestmark = on_the_stand_in if solo_root() is None else []
