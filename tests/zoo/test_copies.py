# SPDX-License-Identifier: MIT
"""``ltplugins zoo list`` and ``get``: a line an entry, copies of what is listed, no lost work.

The entries are no models: nothing here opens one.
"""

import errno
import os
import shutil
import sys

import pytest

from ltplugins.catalogue.store import Store
from ltplugins.cli import main
from tests.kit.entries import refused
from tests.kit.zoo import FILES, listing_of, serving, write_index, write_zoo

NAMES = [f"{method}-fashion-a_network_of_some_length" for method in ("byol", "colt", "simclr")]


@pytest.fixture
def three(tmp_path, monkeypatch):
    """A zoo of three entries in a folder."""
    folder = tmp_path / "three"
    for name in NAMES:
        write_zoo(folder, name)
    write_index(folder, {name: listing_of(folder / name) for name in NAMES})
    monkeypatch.setenv("LTPLUGINS_ZOO", str(folder))
    monkeypatch.setenv("LTPLUGINS_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def far(three, monkeypatch):
    """The same over HTTP; nothing of it is here."""
    with serving(three) as server:
        monkeypatch.setenv("LTPLUGINS_ZOO", server.address)
        yield server


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_list_has_a_line_an_entry(is_terminal, three, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    main(["zoo", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == NAMES
    assert all(line.split()[1:4] == ["simclr", "custom", "test_resnet"] for line in lines[1:4])


@pytest.mark.parametrize("words", [["list"], ["get"], ["get", *NAMES]])
def test_an_index_is_read_as_often_for_many_as_for_one(words, three, monkeypatch, capsys):
    """Each reading takes as long as the index is."""
    read = []
    index = Store.index
    monkeypatch.setattr(Store, "index", lambda *given: (read.append(1), index(*given))[1])
    main(["zoo", *words])
    assert len(read) <= 2


# --- what a copy is ---


def test_a_copy_is_what_the_index_lists(three, tmp_path, capsys):
    entry = three / NAMES[0]
    (entry / "modeling.py").write_text("import os")
    (entry / "pw.json").symlink_to("/etc/hostname")
    (entry / "gone.json").symlink_to("/nonexistent")
    (entry / "sub").mkdir()
    os.mkfifo(entry / "pipe.json")
    (entry / "model.sig").write_text("of what is listed")
    main(["zoo", "get", NAMES[0], "--to", str(tmp_path / "to")])
    copy = tmp_path / "to" / NAMES[0]
    assert {path.name for path in copy.iterdir()} == {*FILES, "model.sig"}
    for path in copy.iterdir():
        assert path.read_bytes() == (entry / path.name).read_bytes()


def test_a_signature_that_is_a_link_stays(three, tmp_path, capsys):
    (three / NAMES[0] / "model.sig").symlink_to("/etc/hostname")
    main(["zoo", "get", NAMES[0], "--to", str(tmp_path)])
    assert {path.name for path in (tmp_path / NAMES[0]).iterdir()} == {*FILES}


def test_a_full_disk_is_told_as_the_copys(three, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    told = refused(["zoo", "get", NAMES[0], "--to", str(tmp_path / "to")], capsys)
    assert f"{tmp_path / 'to' / NAMES[0]}: No space left on device" in told
    assert not [*(tmp_path / "to").iterdir()]


# --- nothing is fetched for a command that cannot be done ---


def asked(server):
    return [path for path, _ in server.asked if not path.endswith("index.json")]


@pytest.mark.parametrize("part", ["get", "verify"])
def test_a_name_that_there_is_not(part, far, capsys):
    for names in ([NAMES[0], "nope"], [NAMES[0], "../x"]):
        told = refused(["zoo", part, *names], capsys)
        assert "no such entry" in told or "expected a name of small letters" in told
    assert not asked(far)


def test_a_place_that_can_be_no_folder(far, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / NAMES[1]).symlink_to("/nonexistent")
    for to in ("file", "file/below"):
        told = refused(["zoo", "get", "--to", str(tmp_path / to)], capsys)
        assert (
            f"--to: expected a folder, got {tmp_path / to}: {tmp_path / 'file'} is no folder"
            in told
        )
    assert "exists: expected a free place" in refused(["zoo", "get", "--to", str(tmp_path)], capsys)
    assert not asked(far) and (tmp_path / "file").read_text() == "mine"


def test_a_place_that_is_read_only(far, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    told = refused(["zoo", "get", "--to", str(tmp_path / "to")], capsys)
    assert f"{tmp_path} cannot be written to" in told
    assert not asked(far)


def test_a_name_that_is_given_twice_is_copied_once(three, tmp_path, capsys):
    main(["zoo", "get", NAMES[0], NAMES[0], "--to", str(tmp_path / "to")])
    assert capsys.readouterr().out.count("zoo://") == 1
    assert [path.name for path in (tmp_path / "to").iterdir()] == NAMES[:1]


@pytest.mark.parametrize("part", ["get", "info", "verify"])
def test_what_was_fetched_in_part_goes_on(part, far, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "entry", stop)
    with pytest.raises(SystemExit) as end:
        main(["zoo", part, NAMES[0]])
    assert end.value.code == 130 and "the same command goes on" in capsys.readouterr().err


# --- names ---


@pytest.mark.parametrize("name", [NAMES[0], f"zoo://{NAMES[0]}"])
def test_a_name_as_it_stands_elsewhere(name, three, tmp_path, capsys):
    main(["zoo", "get", name, "--to", str(tmp_path / "to")])
    assert f"zoo://{NAMES[0]}: {tmp_path / 'to' / NAMES[0]}\n" == capsys.readouterr().out
    assert "no block 'ltplugins'" in refused(["zoo", "info", name], capsys)  # it was found


@pytest.mark.parametrize("name", ["a" * 97, "x.", "A", "x..y", "zoo://zoo://x"])
def test_a_name_that_is_none_says_what_one_is(name, three, capsys):
    told = refused(["zoo", "info", name], capsys)
    assert f"zoo://{name.removeprefix('zoo://')}: expected a name of small letters" in told
    assert "96 at most, a letter or digit first and last and no '..'" in told
