# SPDX-License-Identifier: MIT
"""``zoo add --half``: weights in float16, and what an entry says of them."""

import json
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from ltplugins.core.errors import UserError
from ltplugins.eval.results import Results
from ltplugins.stages.compose import compose_packaged
from ltplugins.stages.evaluate import evaluate
from ltplugins.stages.zoo.add import Naming, add
from ltplugins.stages.zoo.rounded import evaluation_of
from ltplugins.zoo.check import check_of
from ltplugins.zoo.export import round_to_half
from ltplugins.zoo.facts import read_facts
from ltplugins.zoo.load import load_backbone
from tests.kit.entries import EVAL, measure
from tests.kit.hosts import on_the_stand_in

pytestmark = on_the_stand_in  # whose backbone is timm's


def test_weights_in_float16_are_measured_as_such(tiny_run, tmp_path):
    """The file is half as large, and numbers and features are of the rounded weights."""
    run = shutil.copytree(measure(tiny_run), tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    for protocol in results["protocols"].values():
        protocol["overall"]["mean"] = 0.5  # of other weights
    (run / "results.json").write_text(json.dumps(results))
    folder = add([run], tmp_path / "zoo", Naming("x", half=True))
    kept = load_file(folder / "model.safetensors")
    own = load_backbone(run).net.state_dict()
    for key, value in own.items():
        half = value.half() if value.is_floating_point() else value
        assert kept[key].dtype == half.dtype and torch.equal(kept[key], half)
    opened = load_backbone(folder)
    assert {v.dtype for v in opened.net.parameters()} == {torch.float32}
    _, facts = read_facts(folder)
    assert check_of(opened).features == facts.zoo.check.features
    words = [f"run='{folder}'", f"out='{tmp_path / 'again'}'", *EVAL]
    words += [
        f"+data.{k}_path='{OmegaConf.load(run / 'config.yaml').data[f'{k}_path']}'"
        for k in ("train", "val")
    ]
    again = evaluate(compose_packaged("evaluate", words)).protocols
    scores = facts.zoo.shipped.scores
    assert {n: s["overall"] for n, s in scores.items()} == {
        name: entry.overall.mean for name, entry in again.items()
    }
    assert "float16" in (folder / "README.md").read_text()
    results["protocols"]["linear_3shot"] = results["protocols"]["linear_2shot"]
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="linear_3shot is of another than the rest"):
        add([run], tmp_path / "zoo", Naming("y", half=True))


def test_weights_beyond_float16_are_refused(tiny_run):
    model = load_backbone(tiny_run)
    next(model.net.parameters()).data.fill_(1e5)
    with pytest.raises(UserError, match="beyond 65504, where float16 ends"):
        round_to_half(model)


def test_an_evaluation_is_asked_for_as_it_was(tiny_run):
    known = Results.read(measure(tiny_run) / "results.json").protocols
    asked = evaluation_of(known)
    assert (asked["knn"]["k"], asked["linear"]["shots"], asked["linear_lt"]) == (2, [2], None)
    assert (asked["groups"], asked["seeds"]) == (["tercile", "threshold"], [0])
    assert asked["linear"]["engine"] == known["linear_2shot"].settings["engine"]
    probes = {name: of for name, of in known.items() if of.kind == "linear"}
    assert evaluation_of(probes)["knn"] is None
