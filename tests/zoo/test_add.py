# SPDX-License-Identifier: MIT
"""What becomes an entry, what it says of itself, and what is refused."""

import dataclasses
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ltplugins.catalogue.index import Index
from ltplugins.catalogue.store import damage_of
from ltplugins.core.errors import UserError
from ltplugins.runs.checkpoint import open_run
from ltplugins.stages.zoo import evaluated as stage
from ltplugins.stages.zoo import figure
from ltplugins.stages.zoo.add import Naming, add, refresh
from ltplugins.zoo.card import card
from ltplugins.zoo.facts import read_facts
from ltplugins.zoo.folder import entries_of
from ltplugins.zoo.load import load_backbone
from ltplugins.zoo.page import zoo_page
from tests.kit.entries import another_seed, measure
from tests.kit.hosts import on_the_stand_in
from tests.kit.paths import ROOT

pytestmark = on_the_stand_in  # whose backbone is timm's


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of an evaluated run, to spoil."""
    return shutil.copytree(measure(tiny_run), tmp_path / "run")


def test_an_entry_says_what_it_is(made_zoo, tiny_run):
    config, facts = read_facts(made_zoo / "tiny")
    zoo, origin = facts.zoo, open_run(tiny_run).origin
    assert facts.origin == origin and facts.epochs == 1 and facts.seed == zoo.shipped.seed
    assert "ltplugins" not in config["pretrained_cfg"]  # timm knows no such key
    own = json.loads((tiny_run / "results.json").read_text())["protocols"]
    assert set(zoo.protocols) == set(own)
    for name, entry in zoo.protocols.items():
        assert (
            entry.overall.mean
            == own[name]["overall"]["mean"]
            == zoo.shipped.scores[name]["overall"]
        )
        assert (entry.overall.std, entry.overall.n) == (None, 1)
        assert entry.settings == own[name]["settings"]
    assert zoo.shipped.split.hash == origin.split.hash and zoo.shipped.hours is not None
    assert zoo.config["method"] == "simclr" and "output_dir" not in zoo.config
    assert str(tiny_run.parent) not in (made_zoo / "tiny/config.json").read_text()
    assert len(zoo.check.features) == facts.num_features


def test_the_index_lists_it_with_its_hashes(made_zoo):
    index = Index.read(made_zoo / "index.json")
    line = index.entries["tiny"]
    assert {*line.files} == {path.name for path in (made_zoo / "tiny").iterdir()}
    assert (line.method, line.backbone, line.runs, line.opened_by) == (
        "simclr", "test_resnet", 1, "timm",
    )  # fmt: skip
    assert line.headline.protocol.startswith("knn_k2")


def test_the_card_has_the_hubs_head_and_sections(made_zoo):
    text = (made_zoo / "tiny/README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "mit" and head["library_name"] == "timm"
    results = head["model-index"][0]["results"]
    _, facts = read_facts(made_zoo / "tiny")
    values = [metric["value"] for result in results for metric in result["metrics"]]
    assert values == [round(s["overall"], 4) for s in facts.zoo.shipped.scores.values()]
    for section in ("Model details", "Uses", "Bias, risks and limitations", "Training details",
                    "Evaluation", "Environmental impact", "How to get started"):  # fmt: skip
        assert f"\n## {section}\n" in text
    assert "![Accuracy by shot group](groups.png)" in text and "one run" in text.lower()


def test_pages_are_written_anew_to_the_byte(made_zoo):
    before = {path: path.read_bytes() for path in made_zoo.rglob("*") if path.is_file()}
    refresh(made_zoo)
    assert {path: path.read_bytes() for path in made_zoo.rglob("*") if path.is_file()} == before


def test_several_runs_give_a_mean_and_a_spread(run, tmp_path):
    seed = open_run(run).cfg.seed
    others = [another_seed(run, tmp_path / f"r{n}", seed + n, -0.1 * n) for n in (1, 2)]
    naming = Naming("three", weights=others[0])
    folder = add([run, *others], tmp_path / "zoo", naming)
    _, facts = read_facts(folder)
    protocols = facts.zoo.protocols
    first = json.loads((run / "results.json").read_text())["protocols"]
    for name, entry in protocols.items():
        assert entry.overall.mean == pytest.approx(first[name]["overall"]["mean"] - 0.1)
        assert entry.overall.std == pytest.approx(0.1) and entry.overall.n == 3
    assert [r.label for r in facts.zoo.runs] == [f"seed {seed + n}" for n in range(3)]
    assert [r.is_shipped for r in facts.zoo.runs] == [False, True, False]
    own = load_backbone(others[0]).net.state_dict()
    kept = load_file(folder / "model.safetensors")
    assert all(torch.equal(kept[key], value) for key, value in own.items())
    page = (tmp_path / "zoo/README.md").read_text()
    assert "± 10.0" in page and "over 3 runs" in page
    assert "**seed" in (folder / "README.md").read_text()


def test_a_small_stem_is_marked(small_stem_run, run, tmp_path):
    shutil.copy(run / "results.json", small_stem_run)  # the same images
    folder = add([small_stem_run], tmp_path / "zoo", Naming())
    assert folder.name == "simclr-custom-resnet18"
    assert Index.read(tmp_path / "zoo/index.json").entries[folder.name].opened_by == "load_backbone"
    assert "timm has no such network" in (folder / "README.md").read_text()
    assert "with the small stem" in (folder / "README.md").read_text()
    model, images = load_backbone(folder), torch.zeros(2, 3, 16, 16)
    assert torch.equal(model(images), load_backbone(small_stem_run)(images))


def test_a_run_without_numbers_is_evaluated(run, monkeypatch):
    """And one whose numbers are of fewer epochs."""
    kept = (run / "results.json").read_text()
    asked = []

    def evaluated(cfg):
        asked.append(cfg.run)
        (run / "results.json").write_text(kept)
        return stage.Results.read(run / "results.json")

    monkeypatch.setattr(stage, "evaluate", evaluated)
    (run / "results.json").unlink()
    stage.open_evaluated(run)
    old = {**json.loads(kept), "epoch": 0}
    (run / "results.json").write_text(json.dumps(old))
    assert stage.open_evaluated(run).results.epoch == 1
    stage.open_evaluated(run)
    assert asked == [str(run)] * 2


# --- what is refused ---


def edit(file, how):
    content = json.loads(file.read_text())
    how(content)
    file.write_text(json.dumps(content))


def no_config(run):
    (run / "config.yaml").unlink()


def asks_for_a_secret(run):
    with open(run / "config.yaml", "a") as file:
        file.write("\nextra: ${oc.env:HOME}\n")


def no_seed(run):
    lines = (run / "config.yaml").read_text().splitlines()
    (run / "config.yaml").write_text("\n".join(x for x in lines if not x.startswith("seed:")))


def no_protocol(run):
    edit(run / "results.json", lambda results: results["protocols"].clear())


def no_draws(run):
    edit(run / "results.json", lambda r: r["protocols"]["linear_2shot"].update(seeds=[]))


def unfinished(run):
    edit(run / "run.json", lambda facts: facts.pop("finished"))


def no_run(run):
    (run / "run.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (no_run, r"run\.json is gone"),
        (no_config, r"config\.yaml"),
        (asks_for_a_secret, r"config\.yaml.*oc\.env"),
        (no_seed, "says no seed"),
        (no_protocol, "that a protocol has measured"),
        (no_draws, "linear_2shot does not say its seeds"),
        (unfinished, "is not finished"),
    ],
)
def test_a_run_that_does_not_say_what_it_is(run, tmp_path, spoil, text):
    spoil(run)
    with pytest.raises(UserError, match=text) as error:
        add([run], tmp_path / "zoo", Naming("x"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "zoo").exists()


def test_runs_of_two_experiments_are_no_entry(run, tmp_path):
    other = another_seed(run, tmp_path / "other", 99)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("temperature: 0.2", "temperature: 0.3"))
    with pytest.raises(
        UserError, match=r"another experiment.*temperature is 0\.3 there, 0\.2 here"
    ):
        add([run, other], tmp_path / "zoo", Naming("x"))
    twin = shutil.copytree(run, tmp_path / "twin")
    with pytest.raises(UserError, match="are the same repetition"):
        add([run, twin], tmp_path / "zoo", Naming("x"))
    with pytest.raises(UserError, match="--weights: expected one of the runs"):
        add([run], tmp_path / "zoo", Naming("x", weights=twin))
    assert not (tmp_path / "zoo").exists()


def test_a_name_is_taken_once(run, tmp_path):
    zoo = tmp_path / "zoo"
    folder = add([run], zoo, Naming("x"))
    before = (folder / "config.json").read_bytes()
    with pytest.raises(UserError, match="exists: expected a new name"):
        add([run], zoo, Naming("x"))
    add([run], zoo, Naming("x", replace=True, license="apache-2.0"))
    assert (folder / "config.json").read_bytes() != before
    assert sorted(path.name for path in zoo.iterdir()) == [
        "README.md", "groups-custom.png", "index.json", "x",
    ]  # fmt: skip
    with pytest.raises(UserError, match="expected a name of small letters"):
        add([run], zoo, Naming("../x"))


# --- the zoo of this repository ---


def test_the_zoo_is_small_and_whole():
    """40 MB in all; pages and index are what the entries say."""
    zoo = ROOT / "zoo"
    assert sum(path.stat().st_size for path in zoo.rglob("*") if path.is_file()) < 40e6
    index = Index.read(zoo / "index.json")
    found = entries_of(zoo)
    assert set(found) == set(index.entries)
    assert all(damage_of(zoo / name, line) is None for name, line in index.entries.items())
    for name, facts in found.items():
        assert card(*facts) == (zoo / name / "README.md").read_text()
    assert zoo_page(found, index, zoo / "reported.csv") == (zoo / "README.md").read_text()


def test_an_entry_without_a_protocol_keeps_its_row_and_colour(made_zoo):
    zoo = read_facts(made_zoo / "tiny")[1].zoo
    knn = next(name for name, entry in zoo.protocols.items() if entry.kind == "knn")
    other = dataclasses.replace(zoo, name="other", protocols={knn: zoo.protocols[knn]})
    (lacking,) = set(zoo.protocols) - {knn}
    section = figure._section(lacking, [other, zoo])
    assert [row.name for row in section.rows] == ["other", "tiny"]
    assert section.rows[0].cells["overall"].mean is None
    assert section.rows[1].cells["overall"].mean == zoo.protocols[lacking].overall.mean
