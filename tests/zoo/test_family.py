# SPDX-License-Identifier: MIT
"""The zoo's family: which entries are to be, what is missing, and entries of finished cells."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

from ltplugins.catalogue.index import Index
from ltplugins.config.resolve import resolve
from ltplugins.core.errors import UserError
from ltplugins.runs.places import LAST_CHECKPOINT
from ltplugins.stages.blocks import config_blocks
from ltplugins.stages.claims.cells import Setting
from ltplugins.stages.claims.pool import Outcome
from ltplugins.stages.claims.work import pretrain_composer
from ltplugins.stages.zoo.family import command
from ltplugins.stages.zoo.family.plan import plan_family, read_family
from ltplugins.training.check import check_run
from ltplugins.zoo.facts import read_facts
from ltplugins.zoo.folder import entries_of, write_pages
from tests.kit.claims import write_book
from tests.kit.entries import another_seed, measure
from tests.kit.hosts import on_the_stand_in
from tests.kit.paths import ROOT

pytestmark = on_the_stand_in

FILE = ROOT / "scripts/sweep/zoo.yaml"
# What the issue of a family is: these methods on both data sets, by one small network.
METHODS = (
    *("simclr", "byol", "gh_simclr", "gh_byol", "colt_simclr", "mv_simclr", "mttv"),
    *("sdclr_simclr", "iccl", "gml"),
)
FAMILY = {
    "book": "claims.yaml",
    "pairs": {"tiny": 2},
    "entries": {
        "plain-tiny": {"data": "tiny", "arm": "simclr", "epochs": 1, "half": False},
        "own-tiny": {"data": "tiny", "arm": "own", "epochs": 1, "half": False},
    },
    "arms": {"own": {"words": ["method=byol"]}},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a family's file and its book, in which the commands are called."""
    write_book(tmp_path)
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump(FAMILY, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    for draw in ("draw_entry", "draw_zoo"):  # seen in test_add.py, and slow
        monkeypatch.setattr(f"ltplugins.stages.zoo.add.{draw}", lambda _: None)
    return tmp_path


def call(*words: str) -> None:
    command.main(["--file", "zoo.yaml", "--root", "cells", "--zoo", "zoo", *words])


def plan(name: str = "plain-tiny"):
    family, book = read_family(Path("zoo.yaml"))
    plans = plan_family(family, book, Setting(Path("cells")), Path("zoo"))
    return next(one for one in plans if one.name == name)


def finish(run: Path, cell) -> None:
    """Put a finished run where a cell's would be, with the cell's seed."""
    seed = int(dict(word.partition("=")[::2] for word in cell.words)["seed"])
    cell.path.parent.mkdir(parents=True, exist_ok=True)
    another_seed(run, cell.path, seed)


def test_entries_are_made_of_finished_cells_and_then_left(folder, tiny_run, capsys):
    run = measure(tiny_run)
    cells = plan().cells
    finish(run, cells[0])
    call("--limit", "0")
    assert not Path("zoo").exists() and "1 of 2 cells are finished" in capsys.readouterr().err
    finish(run, cells[1])
    call("--limit", "0")
    assert "written: zoo/plain-tiny, of 2 runs" in capsys.readouterr().err
    _, facts = read_facts(Path("zoo/plain-tiny"))
    assert [r.seed for r in facts.zoo.runs] == [0, 1] and facts.zoo.shipped.seed == 0
    before = {path: path.stat().st_mtime_ns for path in Path("zoo").rglob("*")}
    call("--limit", "0")
    assert {path: path.stat().st_mtime_ns for path in Path("zoo").rglob("*")} == before
    assert "plain-tiny: there, of 2 runs" in capsys.readouterr().err
    finish(run, cells[3])  # a further pair, of the claims
    call("--limit", "0")
    assert [r.seed for r in read_facts(Path("zoo/plain-tiny"))[1].zoo.runs] == [0, 1, 3]
    shutil.rmtree(cells[0].path)  # it was measured elsewhere: the entry keeps what it has
    finish(run, cells[2])
    assert plan().state() == "nothing"
    assert plan().state(replace=True) == "train"


def test_cells_and_entries_travel(folder, tiny_run, capsys):
    """What another machine has trained and written goes on here, or into the zoo as it is."""
    run = measure(tiny_run)
    for cell in plan().cells[:2]:
        finish(run, cell)
    call("--limit", "0", "--collect", "out.tar")
    told = capsys.readouterr().err
    assert "packed: out.tar (" in told and "packed: out.entries.tar (" in told
    with tarfile.open("out.tar") as cells_file, tarfile.open("out.entries.tar") as entries_file:
        cells, entries = cells_file.getnames(), entries_file.getnames()
    assert {f"cpu/{cell.name}/{LAST_CHECKPOINT}" for cell in plan().cells[:2]} <= set(cells)
    assert set(entries) == {str(p.relative_to("zoo")) for p in Path("zoo/plain-tiny").iterdir()}

    entry = {path.name: path.read_bytes() for path in Path("zoo/plain-tiny").iterdir()}
    shutil.rmtree("zoo")
    shutil.rmtree("cells")
    call("--limit", "0", "--collect", "none.tar", "--only", "plain-tiny")
    assert not Path("none.tar").exists() and not Path("none.entries.tar").exists()
    shutil.unpack_archive("out.entries.tar", "zoo")
    assert {path.name: path.read_bytes() for path in Path("zoo/plain-tiny").iterdir()} == entry
    write_pages(Path("zoo"))
    assert set(Index.read(Path("zoo/index.json")).entries) == {"plain-tiny"}


def test_what_is_missing_is_trained_once(folder, tiny_run, monkeypatch, capsys):
    run, asked = measure(tiny_run), []

    class Here:
        def __init__(self, *_):
            pass

        def run(self, cells, limit):
            asked.extend(cell.name for cell in cells)
            finish(run, cells[0])
            finish(run, cells[1])
            return Outcome(done=[cells[0].name, cells[1].name], left=[c.name for c in cells[2:]])

    monkeypatch.setattr("ltplugins.stages.claims.pool.Pool", Here)
    call()
    assert asked == [
        *("tiny,simclr,e1,p1", "tiny,simclr,e1,p2"),
        *("tiny,own,e1,p1", "tiny,own,e1,p2"),
    ]
    told = capsys.readouterr().err
    assert "written: zoo/plain-tiny, of 2 runs" in told and "written: zoo/own-tiny" not in told
    assert "2 not begun; the same command goes on" in told
    call("--list")
    told = capsys.readouterr().out
    assert "plain-tiny: there, of 2 runs" in told
    assert "own-tiny: 0 of 2 cells are finished, the next is tiny,own,e1,p1" in told


def test_an_entry_that_cannot_be_takes_no_other_with_it(folder, tiny_run, capsys):
    run = measure(tiny_run)
    for name in ("plain-tiny", "own-tiny"):
        for cell in plan(name).cells[:2]:
            finish(run, cell)
    results = plan().cells[0].path / "results.json"
    results.write_text(json.dumps({**json.loads(results.read_text()), "protocols": {}}))
    with pytest.raises(SystemExit) as end:
        call("--limit", "0")
    told = capsys.readouterr().err
    assert end.value.code == 1
    assert "failed: plain-tiny:" in told and "written: zoo/own-tiny, of 2 runs" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["pairs"].update(tiny=7), "pairs.tiny: expected at most 6"),
        (lambda f: f["pairs"].update(tinny=1), "unknown data 'tinny'.*tiny"),
        (lambda f: f["entries"]["own-tiny"].update(arm="own2"), "entries.own-tiny: unknown arm"),
        (lambda f: f["entries"]["own-tiny"].update(arm="second"), "second stage. Take first"),
        (lambda f: f["entries"].update({"../x": f["entries"]["own-tiny"]}), "small letters"),
        (lambda f: f["arms"].update(simclr={"words": []}), "arms.simclr: expected another name"),
        (lambda f: f["entries"]["own-tiny"].update(epochs=0), "epochs: expected a whole number"),
        (lambda f: f.update(book="none.yaml"), "none.yaml cannot be read as YAML"),
    ],
)
def test_a_wrong_file_is_refused(folder, change, message):
    plain = yaml.safe_load(Path("zoo.yaml").read_text())
    change(plain)
    Path("zoo.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(UserError, match=message) as error:
        read_family(Path("zoo.yaml"))
    assert "\n" not in str(error.value)


def test_an_unknown_entry_is_refused(folder, capsys):
    with pytest.raises(SystemExit) as end:
        call("--only", "plain-tyni", "--list")
    told = capsys.readouterr().err
    assert end.value.code == 2 and "Did you mean 'plain-tiny'" in told


# --- the packaged family ---


def test_the_packaged_family_is_whole():
    family, _ = read_family(FILE)
    made = {(m.data, m.arm): name for name, m in family.entries.items()}
    assert len(made) == len(family.entries)
    names = {f"{method}-{data}-test_resnet" for method in METHODS for data in ("fashion", "land")}
    assert names <= set(family.entries)
    assert {name.rpartition("-")[2] for name in family.entries} == {
        "test_resnet", "vit_tiny", "convnext_atto",
    }  # fmt: skip
    for name, (_, facts) in entries_of(ROOT / "zoo").items():
        member = family.entries[name]
        assert (member.epochs, facts.dataset) == (facts.epochs, f"{member.data}_pack")


def test_every_arm_of_the_packaged_family_composes():
    """Those that the claims have not: an arm of the family's own, or a book's on other images."""
    family, book = read_family(FILE)
    known = {(claim.data, arm) for claim in book.claims for arm in (claim.ours, claim.base)}
    for one in plan_family(family, book, Setting(Path("cells")), Path("zoo")):
        member = family.entries[one.name]
        if (member.data, member.arm) in known:
            continue
        run = resolve(pretrain_composer().compose(one.cells[0].command), config_blocks)
        check_run(run)
        method, data, network = one.name.split("-")
        assert (run.method, run.data.dataset) == (method, f"{data}_pack")
        assert run.backbone.name == network and run.max_epochs == member.epochs
