# SPDX-License-Identifier: MIT
"""``ltplugins zoo serve``: an index that changes, clients that misbehave, hosts and ports."""

import errno
import socket
import threading
import urllib.error
import urllib.request

import pytest

from ltplugins.core.errors import UserError
from ltplugins.stages.zoo import serve as stage
from ltplugins.stages.zoo.serve import make_server
from tests.kit.zoo import NAME, listing_of, write_index, write_zoo


@pytest.fixture
def folder(tmp_path):
    return write_zoo(tmp_path / "zoo")


@pytest.fixture
def server(folder):
    server = make_server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def status(server, place):
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{server.server_address[1]}/{place}"
        ) as found:
            return found.status
    except urllib.error.HTTPError as error:
        return error.code


def answer(server, text):
    """What comes for a request, to its end."""
    with socket.create_connection(server.server_address) as client:
        client.sendall(text.encode())
        with client.makefile("rb") as file:
            return file.read()


def test_an_index_that_is_written_anew_counts(server, folder):
    (folder / "another").mkdir()
    for file in (folder / NAME).iterdir():
        (folder / "another" / file.name).write_bytes(file.read_bytes())
    assert status(server, "another/config.json") == 404
    write_index(folder, {"another": listing_of(folder / "another")})
    assert status(server, "another/config.json") == 200
    assert status(server, f"{NAME}/config.json") == 404  # the index has it no more
    (folder / "index.json").write_text('{"entr')
    assert status(server, "another/config.json") == 404
    (folder / "index.json").unlink()
    assert status(server, "another/config.json") == 404


def test_what_is_no_address_is_no_file(server, capsys):
    assert b" 404 " in answer(server, "GET http://[::1/x HTTP/1.0\r\n\r\n").splitlines()[0]
    assert "Traceback" not in capsys.readouterr().err


def test_a_start_of_thousands_of_digits_counts_for_nothing(server, folder, capsys):
    asked = f"GET /{NAME}/config.json HTTP/1.0\r\nRange: bytes={'9' * 5000}-\r\n\r\n"
    head, _, body = answer(server, asked).partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert body == (folder / NAME / "config.json").read_bytes()
    assert "Traceback" not in capsys.readouterr().err


def test_a_client_that_goes_away_is_no_traceback(server, capsys):
    for error in (BrokenPipeError(), ConnectionResetError(), TimeoutError()):
        try:
            raise error
        except OSError:
            server.handle_error(None, ("127.0.0.1", 1))
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("host", ["", "nowhere.invalid", "\u2603..x", "a" * 300, "192.0.2.1"])
def test_a_host_that_is_not_this_machine(host, folder, monkeypatch):
    def found(name, *_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    if host == "nowhere.invalid":  # without asking a network
        monkeypatch.setattr(socket, "getaddrinfo", found)
    with pytest.raises(UserError, match="--host: expected an address of this machine") as error:
        make_server(folder, host)
    assert repr(host) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("port", [-1, 2**16])
def test_a_port_that_is_none(port, folder):
    with pytest.raises(UserError, match="--port: expected a number from 0 to 65535"):
        make_server(folder, port=port)


def test_a_host_of_ipv6(folder, monkeypatch, capsys):
    monkeypatch.setattr(stage._Server, "serve_forever", lambda server: None)
    try:
        stage.serve(folder, "::1", 0)
    except UserError:
        pytest.skip("this machine has no ::1")
    assert "LTPLUGINS_ZOO=http://[::1]:" in capsys.readouterr().out


def test_ipv6_is_bound_as_such(folder, monkeypatch):
    """Also where the machine has none: the socket that is asked for is of its family."""

    def refuse(server):
        assert server.address_family == socket.AF_INET6
        assert server.server_address[:2] == ("::1", 80)
        raise OSError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr(stage._Server, "server_bind", refuse)
    with pytest.raises(UserError, match="--port: ::1:80 cannot be served"):
        make_server(folder, "::1", 80)
