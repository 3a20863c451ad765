# SPDX-License-Identifier: MIT
"""What lies in a zoo's folder is not lost, and what would stop a command stops it before it works.

Each refusal leaves every file as it was.
"""

import json
import os

import pytest

from ltplugins.catalogue.index import Index
from ltplugins.core.errors import UserError
from ltplugins.core.files import temporary
from ltplugins.stages.zoo import add as stage
from ltplugins.stages.zoo.add import Naming, add, refresh
from ltplugins.zoo.folder import write_pages
from tests.kit.entries import another_seed, measure, refused
from tests.kit.hosts import on_the_stand_in

pytestmark = on_the_stand_in


@pytest.fixture
def idle(monkeypatch):
    """A refusal comes before a run is opened, and before a figure is drawn."""

    def work(*_):
        raise AssertionError("this is work")

    for name in ("open_evaluated", "draw_entry", "write_card", "draw_zoo", "write_pages"):
        monkeypatch.setattr(stage, name, work)


def content(folder):
    return {
        path: os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def require_refused(text, call, folder):
    before = content(folder)
    with pytest.raises(UserError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
    assert content(folder) == before


# --- what is replaced is an entry ---


def own_folder(zoo):
    (zoo / "results").mkdir()
    (zoo / "results/claims.csv").write_text("mine")
    return "results", r"results/config\.json cannot be read"


def own_config(zoo):
    (zoo / "results").mkdir()
    (zoo / "results/config.json").write_text("{}")
    return "results", r"no block 'ltplugins'"


def own_file(zoo):
    (zoo / "results").write_text("mine")
    return "results", r"results/config\.json cannot be read"


def nowhere(zoo):
    (zoo / "results").symlink_to("/nonexistent")
    return "results", r"results/config\.json cannot be read"


def notes(zoo):
    (zoo / "tiny/notes.txt").write_text("mine")
    return "tiny", r"tiny/notes\.txt: expected files alone"


def hidden(zoo):
    (zoo / "tiny/.notes").write_text("mine")
    return "tiny", r"tiny/\.notes would be lost"


@pytest.mark.parametrize("spoil", [own_folder, own_config, own_file, nowhere, notes, hidden])
def test_replace_takes_the_place_of_an_entry_alone(spoil, zoo, tiny_run, idle):
    name, text = spoil(zoo)
    naming = Naming(name, replace=True)
    require_refused(f"--replace: .*{text}", lambda: add([tiny_run], zoo, naming), zoo)
    if name != "tiny":
        require_refused("exists: exp", lambda: add([tiny_run], zoo, Naming(name)), zoo)


@pytest.mark.parametrize(
    "name", ["index.json", "index.json.sig", "groups-custom.png", "reported.csv", "new.json"]
)
@pytest.mark.parametrize("replace", [False, True])
def test_a_name_is_none_of_a_file(name, replace, zoo, tiny_run, tmp_path, idle):
    for there in (zoo, tmp_path / "new"):
        naming = Naming(name, replace=replace)
        require_refused(
            "expected the name of a folder", lambda t=there, n=naming: add([tiny_run], t, n), zoo
        )
        assert not (tmp_path / "new").exists()


# --- what is written over is a zoo's ---


def test_a_page_that_is_not_a_zoos_is_kept(zoo, tiny_run, idle):
    (zoo / "README.md").write_text("my own page\n")
    require_refused("README.md is not the page of a zoo", lambda: refresh(zoo), zoo)
    require_refused("README.md is not the page", lambda: add([tiny_run], zoo, Naming("x")), zoo)


def test_another_programs_index_is_kept(tmp_path, tiny_run, idle):
    (tmp_path / "index.json").write_text('{"pages": 3}')
    text = "index.json is damaged or of another program"
    require_refused(text, lambda: refresh(tmp_path), tmp_path)
    require_refused(text, lambda: add([tiny_run], tmp_path, Naming("x")), tmp_path)


def test_cards_are_written_in_a_zoo_alone(tmp_path, tiny_run, idle):
    (tmp_path / "photo.png").write_text("mine")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "photo.png"):
        require_refused("is no zoo: expected a folder with", lambda f=folder: refresh(f), tmp_path)
    for file in (tmp_path / "photo.png", tmp_path / "photo.png/below"):
        require_refused(
            "--zoo: expected a folder, got .*png is no folder",
            lambda f=file: add([tiny_run], f, Naming("x")),
            tmp_path,
        )


@pytest.mark.parametrize(
    "words", [["card", "--zoo", ""], ["add", "x", "--zoo", ""], ["add", ""], ["get", "--to", ""]]
)
def test_no_path_is_not_this_folder(words, zoo, capsys, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "expected a path, got none" in refused(["zoo", *words], capsys)
    assert not [*(tmp_path / "here").iterdir()]


# --- a zoo that is not whole ---


def damaged(zoo):
    (zoo / "tiny/config.json").write_text('{"arch')
    return r"tiny/config\.json is damaged.*move .*/tiny out of the zoo"


def stray(zoo):
    (zoo / "tiny/notes.txt").write_text("mine")
    return r"tiny/notes\.txt: expected files alone, no link, of the kinds \.json"


def below(zoo):
    (zoo / "tiny/sub").mkdir()
    return r"tiny/sub: expected files alone"


def leads_out(zoo):
    (zoo / "tiny/pw.json").symlink_to("/etc/hostname")
    return r"tiny/pw\.json: expected files alone"


def pipe(zoo):
    os.mkfifo(zoo / "tiny/pipe.json")
    return r"tiny/pipe\.json: expected files alone"


def no_table(zoo):
    (zoo / "reported.csv").write_text("")
    return r"reported\.csv: expected a table.*it is empty"


def other_words(zoo):
    (zoo / "reported.csv").write_bytes(b"a,b\n\xff,1\n")
    return r"reported\.csv: expected a table.*can't decode byte"


def long_cell(zoo):
    (zoo / "reported.csv").write_text(f"a,b\n{'x' * 200_000},1\n")
    return r"reported\.csv: expected a table.*field larger"


def ragged(zoo):
    (zoo / "reported.csv").write_text("a,b\n1\n\n2,3,4\n")
    return r"reported\.csv: expected a table.*1 to 3 cells"


def newer(zoo):
    (zoo / "index.json").write_text('{"version": 7, "entries": {}}')
    return r"index\.json is of form 7"


def no_file(zoo):
    (zoo / "index.json").unlink()
    (zoo / "index.json").mkdir()
    return r"index\.json: expected a file of the zoo"


SPOILT = [damaged, stray, below, leads_out, pipe, no_table, other_words, long_cell, ragged, newer]


@pytest.mark.parametrize("spoil", [*SPOILT, no_file])
def test_a_zoo_that_is_not_whole_is_told_before_any_work(spoil, zoo, tiny_run, idle):
    text = spoil(zoo)
    require_refused(text, lambda: add([tiny_run], zoo, Naming("x")), zoo)
    require_refused(text, lambda: refresh(zoo), zoo)


@pytest.mark.parametrize("text", ["", '{"entr', "[]", '{"entries": 3}'])
def test_a_damaged_index_is_written_anew(text, zoo, caplog):
    before = content(zoo)
    (zoo / "index.json").write_text(text)
    (zoo / "index.json.sig").write_text("of another")
    with caplog.at_level("WARNING", "ltplugins"):
        write_pages(zoo)
    assert content(zoo) == before and "index.json was damaged" in caplog.text


def test_an_empty_card_is_written_anew(zoo):
    before = content(zoo)
    (zoo / "tiny/README.md").write_text("")
    refresh(zoo)
    assert content(zoo) == before


def test_an_entry_is_replaced(zoo, tiny_run, monkeypatch):
    for name in ("draw_entry", "draw_zoo"):  # seen in test_add.py, and slow
        monkeypatch.setattr(stage, name, lambda _: None)
    (zoo / "tiny/model.sig").write_text("of the old one")
    temporary(zoo / "tiny/README.md").write_text("of a command that was killed")
    add([measure(tiny_run)], zoo, Naming("tiny", replace=True, license="apache-2.0"))
    config = json.loads((zoo / "tiny/config.json").read_text())
    assert config["ltplugins"]["zoo"]["license"] == "apache-2.0"
    assert Index.read(zoo / "index.json").entries.keys() == {"tiny"}
    assert not (zoo / "tiny/model.sig").exists()


# --- runs that are given twice ---


def test_a_run_that_is_given_twice(tiny_run, zoo, tmp_path, idle):
    other = another_seed(measure(tiny_run), tmp_path / "other", 99)
    (tmp_path / "link").symlink_to(other)
    for runs in ([other, f"{other}/"], [other, tiny_run, tmp_path / "link"], [other, other]):
        require_refused(
            "are the same run: expected each", lambda r=runs: add(r, zoo, Naming("x")), zoo
        )
    require_refused(
        "--weights: expected one of the runs",
        lambda: add([other], zoo, Naming("x", weights=tiny_run)),
        zoo,
    )
