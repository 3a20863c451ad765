# SPDX-License-Identifier: MIT
"""A server that is broken or means harm is told in one line, and the cache stays as it was."""

import base64
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from ltplugins.catalogue import download
from ltplugins.catalogue.root import HttpRoot
from ltplugins.catalogue.store import Store, entry_folder
from ltplugins.core.errors import UserError
from tests.kit.zoo import NAME, Server, cut, plain, send, serving, write_index, write_zoo

WEIGHTS = "model.safetensors"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(write_zoo(tmp_path / "there")) as server:
        yield server


@pytest.fixture
def store(server: Server, tmp_path: Path) -> Store:
    return Store(HttpRoot(server.address), tmp_path / "cache")


def whole_files(folder: Path) -> dict[str, bytes]:
    """What a user finds in the cache: hidden names are work that is not done."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def flipped(handler, file):
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    send(handler, bytes(content))


def padded(handler, file):
    send(handler, file.read_bytes() + b"x" * 100)


def endless(handler, file):
    """More than any disk holds, without a length; it ends when nobody listens any more."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        handler.close_connection = True


def html(handler, file):
    send(handler, b"<html>log in first</html>", Content_Type="text/html; charset=utf-8")


def disguised(handler, file):
    send(handler, b"<html>log in first</html>")


def absent(handler, file):
    send(handler, b"no", 404)


def asked_for_a_name(handler, file):
    send(handler, b"no", 401)


def forbidden(handler, file):
    send(handler, b"no", 403)


def asked_too_often(handler, file):
    send(handler, b"no", 429)


def broken(handler, file):
    send(handler, b"no", 500)


def elsewhere(handler, file):
    send(handler, b"", 302, Location="http://other.invalid/model.safetensors")


def nowhere(handler, file):
    send(handler, b"", 302, Location="http://[::1")


def no_port(handler, file):
    send(handler, b"", 302, Location="http://127.0.0.1:99999/x")


def no_length(handler, file):
    send(handler, b"abc", Content_Length="abc")
    handler.close_connection = True


def no_piece(handler, file):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"-5\r\nabc")
    handler.close_connection = True


def pickled(handler, file):
    class Evil:
        def __reduce__(self):
            return (open, ("owned", "w"))

    content = pickle.dumps(Evil())
    send(handler, content + bytes(5000 - len(content)))


ANSWERS = [
    (flipped, "the sha256 of what came is not"),
    (padded, "more than the 5000 bytes that were expected"),
    (endless, "more than the 5000 bytes that were expected"),
    (html, "an HTML page instead of the file"),
    (disguised, "got 25 bytes, expected 5000"),
    (absent, "no such file there: 404"),
    (asked_for_a_name, r"the server says 401 Unauthorized\. LTPLUGINS_ZOO may have a name"),
    (forbidden, "the server says 403 Forbidden.*LTPLUGINS_ZOO may have a name"),
    (asked_too_often, "the server says 429 Too Many Requests.*asked too often"),
    (broken, "the server says 500"),
    (elsewhere, "redirects to another host, other.invalid"),
    (nowhere, "no valid HTTP in address or answer"),
    (no_port, "no valid HTTP in address or answer"),
    (no_length, "no valid HTTP in address or answer"),
    (no_piece, "no valid HTTP in address or answer"),
    (pickled, "the sha256 of what came is not"),
]


@pytest.mark.parametrize(("answer", "text"), ANSWERS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_bad_answer_is_one_line(server, store, answer, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.index()
    before = whole_files(store.folder)
    server.answers[WEIGHTS] = answer
    with pytest.raises(UserError, match=text) as error:
        store.entry(NAME)
    assert "\n" not in str(error.value) and f"{NAME}/{WEIGHTS}" in str(error.value)
    assert whole_files(store.folder) == before and not store.is_here(NAME)
    assert not (tmp_path / "owned").exists()
    server.answers.clear()  # and once it is well again, all is well
    assert (store.entry(NAME) / WEIGHTS).read_bytes() == (
        server.folder / NAME / WEIGHTS
    ).read_bytes()


def test_a_server_that_says_nothing_is_left(server, store, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (5.0, 0.2))

    def hang(handler, file):
        server.over.wait(60)

    def stall(handler, file):
        send(handler, file.read_bytes()[:100], Content_Length="5000")
        server.over.wait(60)

    for answer in (hang, stall):
        server.answers[WEIGHTS] = answer
        with pytest.raises(UserError, match=r"no answer within 0\.2 s\. The same command goes on"):
            store.entry(NAME)
        assert not store.is_here(NAME)


def test_nobody_there_is_one_line(store, server):
    store.index()
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError, match="there is no connection"):
        store.entry(NAME)


def test_a_server_without_https_is_told(server, tmp_path):
    root = HttpRoot(server.address.replace("http:", "https:"))
    with pytest.raises(UserError, match=r"no connection by https: .*address begins with http://"):
        Store(root, tmp_path / "cache").index()


def test_a_certificate_that_nobody_trusts_is_told(server, store, monkeypatch):
    words = (
        "HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: / (Caused "
        "by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate "
        "verify failed: self-signed certificate (_ssl.c:1006)')))"
    )

    def refuse(*args, **kwargs):
        raise requests.exceptions.SSLError(words)

    monkeypatch.setattr(requests, "get", refuse)
    told = r"https: certificate verify failed: self-signed certificate\. .*REQUESTS_CA_BUNDLE=FILE"
    with pytest.raises(UserError, match=told):
        store.index()


def test_a_password_is_sent_and_not_told(server, tmp_path, monkeypatch, caplog):
    given = server.address.replace("//", "//me:secret%40pw@")
    monkeypatch.setenv("LTPLUGINS_ZOO", given)
    monkeypatch.setenv("LTPLUGINS_CACHE", str(tmp_path / "cache"))
    sent = []

    def locked(handler, file):
        sent.append(handler.headers.get("Authorization"))
        plain(handler, file) if len(sent) < 3 else send(handler, b"no", 401)

    server.answers[""] = locked
    caplog.set_level("INFO")
    store = Store.of_environment()
    with pytest.raises(UserError, match="401") as error:
        store.entry(NAME)
    assert set(sent) == {f"Basic {base64.b64encode(b'me:secret@pw').decode()}"}
    assert store.root.label == server.address
    for told in (str(error.value), repr(store.root), caplog.text):
        assert "secret" not in told and "me:" not in told


def test_a_cut_transfer_goes_on(server, store, monkeypatch):
    """Within one call as long as something comes, and by the next call from where it was."""
    monkeypatch.setattr(download, "CHUNK", 10)
    server.answers[WEIGHTS] = cut
    with pytest.raises(UserError, match=r"cut off\. The same command goes on from there"):
        store.entry(NAME)
    ranges = [asked for path, asked in server.asked if path.endswith(WEIGHTS)]
    assert ranges == [None, "bytes=2500-", "bytes=3750-", "bytes=4370-", "bytes=4680-"]
    server.answers.clear()
    assert (store.entry(NAME) / WEIGHTS).read_bytes() == (
        server.folder / NAME / WEIGHTS
    ).read_bytes()
    assert server.asked[-2:] == [
        (f"/{NAME}/{WEIGHTS}", "bytes=4840-"),
        (f"/{NAME}/README.md", None),
    ]


def test_a_server_without_ranges_sends_it_whole(server, store, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 10)
    server.answers[WEIGHTS] = cut
    with pytest.raises(UserError, match="cut off"):
        store.entry(NAME)
    server.answers[WEIGHTS] = lambda handler, file: send(handler, file.read_bytes())
    assert (store.entry(NAME) / WEIGHTS).stat().st_size == 5000


def test_a_first_part_of_another_file_is_no_obstacle(server, store):
    store.index()
    listing = store.index().entries[NAME]
    part = store.folder / f".{store.place(NAME, listing).name}.part"
    part.mkdir()
    (part / WEIGHTS).write_bytes(b"y" * 1000)
    assert (store.entry(NAME) / WEIGHTS).read_bytes() == (
        server.folder / NAME / WEIGHTS
    ).read_bytes()


def test_a_redirect_within_the_host_is_followed(server, store):
    def moved(handler, file):
        if "moved" in handler.path:
            plain(handler, server.folder / NAME / WEIGHTS)
        else:
            send(handler, b"", 302, Location=f"{server.address}/moved/{WEIGHTS}")

    server.answers[WEIGHTS] = moved
    assert (store.entry(NAME) / WEIGHTS).stat().st_size == 5000


# --- an index that means harm ---


def changed(server: Server, how) -> None:
    content = json.loads((server.folder / "index.json").read_text())
    how(content["entries"])
    write_index(server.folder, content["entries"])


def named(file):
    return lambda entries: entries[NAME]["files"].update(
        {file: entries[NAME]["files"]["README.md"]}
    )


def renamed(name):
    return lambda entries: entries.update({name: entries.pop(NAME)})


INDEXES = [
    (renamed("../evil"), "entry '../evil': expected a plain name"),
    (renamed("/etc/evil"), "entry '/etc/evil': expected a plain name"),
    (renamed("a..b"), "expected a plain name"),
    (renamed(".hidden"), "expected a plain name"),
    (named("../../.bashrc"), "file '../../.bashrc': expected a plain name"),
    (named("/etc/passwd"), "file '/etc/passwd': expected a plain name"),
    (named("model.ckpt"), "file 'model.ckpt': expected one of .json"),
    (named("pytorch_model.bin"), "expected one of .json"),
    (named("modeling.py"), "expected one of .json"),
    (lambda entries: entries[NAME]["files"].pop(WEIGHTS), "expected model.safetensors among them"),
    (lambda entries: entries[NAME]["files"][WEIGHTS].update(sha256="0"), "64 hexadecimal digits"),
    (
        lambda entries: entries[NAME]["files"][WEIGHTS].update(size=-1),
        "size of 'model.safetensors'",
    ),
    (lambda entries: entries[NAME].update(code="x"), "unknown key"),
    (lambda entries: entries.update({NAME: 7}), "is damaged, or of another program"),
]


@pytest.mark.parametrize(("how", "text"), INDEXES, ids=range(len(INDEXES)))
def test_a_bad_index_is_one_line(server, store, how, text):
    changed(server, how)
    with pytest.raises(UserError, match=text) as error:
        store.entry(NAME)
    assert "\n" not in str(error.value)
    assert whole_files(store.folder) == {}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (html, "HTML page"),
        (absent, "404"),
        (disguised, "is no JSON"),
        (endless, "more than the"),
        (lambda handler, file: send(handler, b"\xff\xfe"), "expected text"),
        (lambda handler, file: send(handler, b'{"version": 9}'), "Update ltplugins"),
        (lambda handler, file: send(handler, b"null"), "expected a block of keys, got None"),
        (cut, "the transfer was cut off"),
        (nowhere, "no valid HTTP in"),
        (no_length, "no valid HTTP in"),
        (no_piece, "no valid HTTP in"),
    ],
    ids=[
        "html",
        "absent",
        "disguised",
        "endless",
        "no text",
        "newer",
        "null",
        "cut",
        "nowhere",
        "no length",
        "no piece",
    ],
)
def test_an_index_that_is_none_leaves_the_old_one(server, store, answer, text, monkeypatch):
    monkeypatch.setattr("ltplugins.catalogue.root._LARGEST_TEXT", 1 << 20)
    store.index()
    before = whole_files(store.folder)
    server.answers["index.json"] = answer
    with pytest.raises(UserError, match=text) as error:
        store.index(refresh=True)
    assert "\n" not in str(error.value)
    assert whole_files(store.folder) == before
    assert NAME in store.index().entries


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", "", "A", "x..y", "."])
def test_a_name_that_is_a_path_is_refused(name, monkeypatch, tmp_path):
    monkeypatch.setenv("LTPLUGINS_ZOO", str(write_zoo(tmp_path / "zoo")))
    with pytest.raises(UserError, match="expected a name of small letters"):
        entry_folder(f"zoo://{name}")
