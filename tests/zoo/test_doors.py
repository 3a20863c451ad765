# SPDX-License-Identifier: MIT
"""An entry opens where nobody has heard of this package, and gives the features it says it gives.

The environment is a second venv that has all libraries of this one and neither this package nor
its checkout; a script there opens the entry through each door.
"""

import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

from ltplugins.catalogue.index import Index
from ltplugins.eval.parts import Parts
from ltplugins.runs.checkpoint import open_run
from ltplugins.zoo.check import check_of
from ltplugins.zoo.export import export
from ltplugins.zoo.facts import read_facts
from ltplugins.zoo.load import load_backbone
from tests.kit.hosts import on_the_stand_in
from tests.kit.paths import ROOT

pytestmark = [on_the_stand_in, pytest.mark.xdist_group("doors")]

SCRIPT = textwrap.dedent(
    """
    import importlib.util, json, os, sys
    os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=os.path.abspath("home"))
    assert importlib.util.find_spec("ltplugins") is None
    import numpy as np, timm, torch
    from PIL import Image

    torch.set_num_threads(1)
    row, column, channel = np.ogrid[:40, :30, :3]
    pixels = (7 * row + 13 * column + 29 * channel + row * column) % 256
    picture = Image.fromarray(pixels.astype(np.uint8))
    found = {}

    @torch.no_grad()
    def by_timm(name):
        model = timm.create_model(name, pretrained=True).eval()
        seen = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        return model, seen, model(seen(picture)[None])[0].tolist()

    model, seen, found["timm"] = by_timm("local-dir:entry")
    found["hub"] = by_timm("hf-hub:somebody/entry")[2]

    data = np.load("images.npz")
    def features(images):
        batch = torch.stack([seen(Image.fromarray(image)) for image in images])
        with torch.no_grad():
            return torch.nn.functional.normalize(model(batch), dim=1)
    similar, k, T = features(data["test"]) @ features(data["bank"]).T, 2, 0.07
    cosine, at = similar.topk(k, dim=1)
    votes = torch.zeros(len(at), 3)
    votes.scatter_add_(1, torch.from_numpy(data["bank_labels"])[at], (cosine / T).exp())
    right = votes.argmax(1).numpy() == data["test_labels"]
    found["knn"] = float(right.mean())

    for name in ("segmentation_models_pytorch", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            found[name] = None
    if "segmentation_models_pytorch" not in found:
        import segmentation_models_pytorch as smp
        unet = smp.Unet("tu-local-dir:entry", encoder_weights="imagenet", classes=2).eval()
        with torch.no_grad():
            maps = unet.encoder(seen(picture)[None])[-1]
            found["smp"] = torch.nn.functional.adaptive_avg_pool2d(maps, 1).flatten().tolist()
            found["masks"] = list(unet(torch.zeros(1, 3, 64, 64)).shape)
    if "onnxruntime" not in found and os.path.exists("onnx/model.onnx"):
        import onnxruntime
        session = onnxruntime.InferenceSession("onnx/model.onnx")
        images = seen(picture)[None].numpy()
        found["onnx"] = session.run(["features"], {"images": images})[0][0].tolist()
    found["loaded"] = sorted(name for name in sys.modules if name.startswith("ltplugins"))
    json.dump(found, open("found.json", "w"))
    """
)


def without_us(folder: Path) -> Path:
    """The Python of a venv with this one's libraries, all but this package."""
    venv.create(folder, symlinks=True, with_pip=False)
    (theirs,) = folder.glob("lib/python*/site-packages")
    for known in site.getsitepackages():
        for path in Path(known).iterdir():
            name = path.name.lower()
            # Files of this kind would bring a checkout back.
            if name.endswith(".pth") or "ltplugins" in name or (theirs / path.name).exists():
                continue
            (theirs / path.name).symlink_to(path)
    return folder / "bin/python"


def as_on_the_hub(entry: Path, home: Path) -> None:
    """The files of an entry as huggingface_hub keeps those of ``somebody/entry``."""
    repo = home / "hub/models--somebody--entry"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text("0" * 40)
    shutil.copytree(entry, repo / "snapshots" / ("0" * 40))


@pytest.fixture(scope="module")
def doors(made_zoo, tiny_run, tmp_path_factory):
    """What the script finds behind each door of the tiny entry."""
    folder = tmp_path_factory.mktemp("doors")
    shutil.copytree(made_zoo / "tiny", folder / "entry")
    as_on_the_hub(folder / "entry", folder / "home")
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        export(made_zoo / "tiny", folder / "onnx", ["onnx"])
    parts = Parts(open_run(tiny_run))
    test, bank = parts.source("test"), parts.source("probe")
    np.savez(
        folder / "images.npz", test=test.images, bank=bank.images, test_labels=test.targets,
        bank_labels=bank.targets,
    )  # fmt: skip
    return run_without_us(folder, SCRIPT)


def run_without_us(folder: Path, script: str) -> dict:
    python = without_us(folder / "venv")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LTPLUGINS"))}
    done = subprocess.run([python, "-c", script], cwd=folder, capture_output=True, env=clean)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def stored(made_zoo):
    return read_facts(made_zoo / "tiny")[1].zoo


def test_nobody_there_knows_us(doors):
    assert doors["loaded"] == []


@pytest.mark.parametrize("door", ["timm", "hub", "smp"])
def test_a_door_gives_the_stored_features_to_the_last_bit(doors, stored, door):
    if door not in doors:
        pytest.skip("its library is not installed")
    assert doors[door] == stored.check.features


def test_a_segmentation_is_built_on_it(doors):
    if "masks" not in doors:
        pytest.skip("segmentation_models_pytorch is not installed")
    assert doors["masks"] == [1, 2, 64, 64]


def test_the_first_door_gives_the_stored_accuracy(doors, stored):
    assert doors["knn"] == pytest.approx(stored.shipped.scores["knn_k2_T0.07"]["overall"])


def test_onnx_gives_the_stored_features(doors, stored):
    if "onnx" not in doors:
        pytest.skip("its libraries are not installed")
    assert doors["onnx"] == pytest.approx(stored.check.features, rel=1e-4, abs=1e-4)


# --- the entries of this repository, by timm in this process ---

ENTRIES = Index.read(ROOT / "zoo/index.json").entries


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_an_entry_of_the_zoo_gives_its_features(name):
    """As near as another processor comes: two of equal instructions differ in the last bits.

    To the last bit on the machine that stored them, see ``doors``.
    """
    stored = read_facts(ROOT / "zoo" / name)[1].zoo.check
    found = check_of(load_backbone(ROOT / "zoo" / name))
    assert found.features == pytest.approx(stored.features, rel=1e-4, abs=1e-4)


def test_the_venv_has_the_libraries_and_no_checkout(tmp_path):
    python = without_us(tmp_path / "venv")
    code = "from importlib.util import find_spec; import numpy\n"
    code += "print(find_spec('ltplugins') is not None, numpy.__file__)"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False") and str(tmp_path) in done.stdout
    assert sys.executable != str(python) and torch.__version__
