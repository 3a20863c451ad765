# SPDX-License-Identifier: MIT
"""What was fetched once is used without a network, and only as long as it is whole."""

import errno
import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from ltplugins.catalogue.index import INDEX, Index, require_safe
from ltplugins.catalogue.root import FolderRoot, HttpRoot, HubRoot, find_root, parse_root
from ltplugins.catalogue.store import Store, entry_folder, is_zoo
from ltplugins.core.errors import UserError
from ltplugins.core.records import from_plain
from tests.kit.paths import ROOT
from tests.kit.zoo import FILES, NAME, listing_of, send, serving, write_index, write_zoo

SCHEMA = json.loads((ROOT / "zoo/index.schema.json").read_text())


def test_what_is_here_needs_no_network(tmp_path, monkeypatch):
    there = write_zoo(tmp_path / "there")
    monkeypatch.setenv("LTPLUGINS_CACHE", str(tmp_path / "cache"))
    with serving(there) as server:
        monkeypatch.setenv("LTPLUGINS_ZOO", server.address)
        folder = entry_folder(f"zoo://{NAME}")
        asked = [path for path, _ in server.asked]
    assert asked == [f"/{INDEX}", *(f"/{NAME}/{file}" for file in FILES)]
    assert entry_folder(f"zoo://{NAME}") == folder  # nobody serves any more
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    with pytest.raises(UserError, match=r"zoo://simclr-tinny: no such entry.*'simclr-tiny'"):
        entry_folder("zoo://simclr-tinny")


def test_a_damaged_copy_is_fetched_again(tmp_path):
    with serving(write_zoo(tmp_path / "there")) as server:
        store = Store(HttpRoot(server.address), tmp_path / "cache")
        file = store.entry(NAME) / "model.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert store.entry(NAME) / "model.safetensors" == file
        assert file.read_bytes() == content


def test_a_cache_that_is_read_only_is_used(tmp_path, monkeypatch):
    """As a cluster's is, which one person fills for all; root may write anywhere, so no chmod."""
    with serving(write_zoo(tmp_path / "there")) as server:
        store = Store(HttpRoot(server.address), tmp_path / "cache")
        folder = store.entry(NAME)

        def read_only(*args, **kwargs):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr("ltplugins.catalogue.store.FileLock", read_only)
        monkeypatch.setattr("ltplugins.catalogue.store.write_text", read_only)
        assert store.entry(NAME) == folder
        with pytest.raises(UserError, match=r"cache.*Read-only file system.*set LTPLUGINS_CACHE"):
            store.index(refresh=True)
        shutil.rmtree(folder)
        with pytest.raises(UserError, match=r"cache.*Read-only file system.*set LTPLUGINS_CACHE"):
            store.entry(NAME)


def test_a_full_disk_names_the_cache_not_the_address(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(write_zoo(tmp_path / "there")) as server:
        store = Store(HttpRoot(server.address), tmp_path / "cache")
        store.index()
        monkeypatch.setattr("ltplugins.catalogue.download._Sink.write", full)
        with pytest.raises(UserError, match=r"cache.*: No space left on device.*LTPLUGINS_CACHE"):
            store.entry(NAME)


def test_a_place_that_is_none_leaves_nothing_here(tmp_path):
    with serving(tmp_path) as server:
        server.answers[""] = lambda handler, file: send(handler, b"", 404)
        with pytest.raises(UserError, match="404"):
            Store(HttpRoot(server.address), tmp_path / "cache").index()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"{", b"\xff", b"null", b'{"entries": 3}'])
def test_a_damaged_index_here_names_itself_and_what_mends_it(content, tmp_path):
    with serving(write_zoo(tmp_path / "there")) as server:
        store = Store(HttpRoot(server.address), tmp_path / "cache")
        store.index()
        (store.folder / INDEX).write_bytes(content)
        with pytest.raises(UserError) as error:
            store.index()
        text = str(error.value)
        assert text.startswith(str(store.folder / INDEX)) and server.address not in text
        assert text.endswith("'ltplugins zoo list --refresh' fetches it anew.")
        assert NAME in store.index(refresh=True).entries


def test_a_new_version_lies_beside_the_old_one(tmp_path):
    there = write_zoo(tmp_path / "there")
    with serving(there) as server:
        store = Store(HttpRoot(server.address), tmp_path / "cache")
        old = store.entry(NAME)
        shutil.rmtree(there / NAME)
        write_zoo(there, seed=1)
        assert store.entry(NAME) == old  # until somebody asks
        store.index(refresh=True)
        assert not store.is_here(NAME)
        new = store.entry(NAME)
    assert new != old and old.is_dir()
    assert (new / "model.safetensors").read_bytes() != (old / "model.safetensors").read_bytes()


def test_progress_is_told_by_file(tmp_path):
    told = []
    with serving(write_zoo(tmp_path / "there")) as server:
        store = Store(HttpRoot(server.address), tmp_path / "cache")
        store.entry(NAME, lambda *facts: told.append(facts))
    assert (NAME, "model.safetensors", 5000, 5000) in told
    assert {file for _, file, _, _ in told} == set(FILES)


def test_a_folder_is_used_where_it_lies(tmp_path, monkeypatch):
    there = write_zoo(tmp_path / "there")
    monkeypatch.setenv("LTPLUGINS_ZOO", str(there))
    assert entry_folder(f"zoo://{NAME}") == there / NAME
    (there / NAME / "README.md").write_text("edited\n")
    with pytest.raises(UserError, match=r"README\.md has 7 bytes, expected 11"):
        entry_folder(f"zoo://{NAME}")
    (there / NAME / "README.md").unlink()
    with pytest.raises(UserError, match=r"README\.md is missing"):
        entry_folder(f"zoo://{NAME}")


def test_a_repository_of_the_hub(tmp_path, monkeypatch):
    """By huggingface_hub itself, from a server that answers as the hub does."""
    there = write_zoo(tmp_path / "there")

    def hub(handler, file):
        place = there / handler.path.partition("/resolve/main/")[2]
        if not place.is_file():
            send(handler, b"", 404, X_Error_Code="EntryNotFound", X_Error_Message="none")
            return
        content = place.read_bytes()
        body = b"" if handler.command == "HEAD" else content
        head = {"ETag": f'"{len(content)}"', "X_Repo_Commit": "0" * 40}
        send(handler, body, Content_Length=str(len(content)), **head)

    with serving(there) as server:
        server.answers[""] = hub
        handler = server.http.RequestHandlerClass
        handler.do_HEAD = handler.do_GET
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        store = Store(HubRoot("me/zoo"), tmp_path / "cache")
        folder = store.entry(NAME)
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        assert any("/me/zoo/resolve/main/index.json" in path for path, _ in server.asked)
        (there / NAME / "README.md").write_text("# an Entry\n")
        with pytest.raises(UserError, match=r"README\.md: what came is not the file of the index"):
            Store(HubRoot("me/zoo"), tmp_path / "other").entry(NAME)
        (there / NAME / "README.md").unlink()
        with pytest.raises(UserError, match=r"README\.md cannot be had") as error:
            Store(HubRoot("me/zoo"), tmp_path / "third").entry(NAME)
        assert "\n" not in str(error.value)
        (there / INDEX).write_bytes(b"\xff")
        with pytest.raises(UserError, match=r"hf://me/zoo/index\.json: expected text"):
            Store(HubRoot("me/zoo"), tmp_path / "fourth").index()
    assert not (tmp_path / "fourth").exists()
    assert Store(HubRoot("me/zoo"), tmp_path / "cache").entry(NAME) == folder


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("hf://a/b", HubRoot),
        ("http://x", HttpRoot),
        ("https://x/y/", HttpRoot),
        ("~/z", FolderRoot),
    ],
)
def test_a_place_is_one_of_three(text, kind):
    assert isinstance(parse_root(text), kind)


NO_ADDRESSES = [
    "http://[::1/zoo",
    "http://exa..mple/zoo",
    f"http://{'x' * 70}/zoo",
    "http://x:99999/zoo",
    "http://x:y/zoo",
    "http://x y/zoo",
    "http://x/\udcff",
]


@pytest.mark.parametrize(
    "text", ["hf://a", "hf://a/b/c", "ftp://x/y", "http://", "file:///x", *NO_ADDRESSES]
)
def test_another_place_is_refused(text):
    with pytest.raises(UserError, match="LTPLUGINS_ZOO: expected a folder, an address"):
        parse_root(text)


@pytest.mark.parametrize("text", ["http://x/zoo?x=1", "http://x/#f", "http://x/zoo?"])
def test_an_address_has_nothing_behind_it(text):
    with pytest.raises(UserError, match=r"expected an address without '\?' and '#'"):
        parse_root(text)


@pytest.mark.parametrize("rest", ["x:y/zoo", "x/?a", "x..y/"])
def test_a_refused_address_does_not_tell_a_password(rest):
    with pytest.raises(UserError) as error:
        parse_root(f"https://me:secret@{rest}")
    assert "secret" not in str(error.value) and f"https://***@{rest}" in str(error.value)


@pytest.mark.parametrize("text", ["/tmp/\udcff", "~nobody-of-this-name/zoo"])
def test_a_folder_of_any_name_is_one_that_may_be_absent(text, monkeypatch):
    monkeypatch.setenv("LTPLUGINS_ZOO", text)
    with pytest.raises(UserError, match="holds no zoo"):
        entry_folder("zoo://x")


def test_without_a_place_it_is_the_checkouts(monkeypatch, tmp_path):
    monkeypatch.delenv("LTPLUGINS_ZOO", raising=False)
    assert find_root().label == str(ROOT / "zoo")
    monkeypatch.setenv("LTPLUGINS_ZOO", str(tmp_path))
    with pytest.raises(UserError, match="holds no zoo"):
        entry_folder("zoo://x")
    assert is_zoo("zoo://x") and not is_zoo("zoo/x") and not is_zoo(True)


# --- the schema that is published, and what the program takes ---


def test_the_zoos_own_index_is_of_the_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads((ROOT / "zoo" / INDEX).read_text()), SCHEMA)


def good(tmp_path: Path) -> dict:
    listing = listing_of(write_zoo(tmp_path / "there") / NAME)
    listing |= {"headline": {"protocol": "knn_k20_T0.07", "mean": 0.5}, "opened_by": "timm"}
    return {"version": 1, "entries": {NAME: listing}}


CHANGES = {
    "as it is": (lambda index, entry: None, True),
    "no entries": (lambda index, entry: index["entries"].clear(), True),
    "another key": (lambda index, entry: entry.update(code="x"), False),
    "a key missing": (lambda index, entry: entry.pop("method"), False),
    "epochs in words": (lambda index, entry: entry.update(epochs="three"), False),
    "a path": (lambda index, entry: index["entries"].update({"../x": entry}), False),
    "dots": (lambda index, entry: index["entries"].update({"a..b": entry}), False),
    "a pickle": (lambda i, entry: entry["files"].update(x=entry["files"]["README.md"]), False),
    "no weights": (lambda index, entry: entry["files"].pop("model.safetensors"), False),
    "a short hash": (lambda i, entry: entry["files"]["README.md"].update(sha256="a"), False),
    "no size": (lambda i, entry: entry["files"]["README.md"].update(size=0), False),
    "a hash too much": (lambda i, entry: entry["files"]["README.md"].update(md5="a"), False),
    "another form": (lambda index, entry: index.update(version=2), False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_schema_and_the_program_agree(name, tmp_path):
    how, is_fine = CHANGES[name]
    index = good(tmp_path)
    how(index, index["entries"][NAME])
    errors = list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(index))
    assert (not errors) == is_fine
    try:
        require_safe(from_plain(Index, index, "x", Index.FORM), "x")
        taken = True
    except UserError:
        taken = False
    assert taken == is_fine


def test_an_index_that_was_written_is_read(tmp_path):
    write_index(tmp_path, {})
    assert Index.read(tmp_path / INDEX) == Index()
