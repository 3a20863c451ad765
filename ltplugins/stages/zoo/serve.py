# SPDX-License-Identifier: MIT
"""``ltplugins zoo serve``: a zoo's folder over HTTP, for mirrors in a house and for tests.

It gives the index, the page, signatures and the files that the index lists, whole or from a byte
on, and nothing else that lies in the folder. An index that is written anew counts from then on.
"""

import errno
import functools
import logging
import os
import re
import socket
import sys
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from ltplugins.catalogue.index import INDEX
from ltplugins.catalogue.root import FolderRoot
from ltplugins.catalogue.store import Store
from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.zoo.page import PAGE, figure_of
from ltplugins.zoo.signature import INDEX_SIGNATURE, SIGNATURE

log = logging.getLogger(__name__)

_RANGE = re.compile(r"bytes=(\d{1,18})-")  # of more digits it counts for nothing, as HTTP allows


class _Handler(SimpleHTTPRequestHandler):
    """GET and HEAD of a zoo's files.

    Attributes:
        zoo: its folder.
    """

    zoo: Path

    def send_head(self) -> Any:
        """Send the head, and return the file at the byte that its body begins with."""
        try:
            place = unquote(urlsplit(self.path).path).lstrip("/")
            file = open(self.zoo / place, "rb") if place in _files(self.zoo) else None  # noqa: SIM115
        except (OSError, ValueError):  # no address, no file, or no index any more
            file = None
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND, "no file of the zoo")
            return None
        return self._begin(file, place)

    def _begin(self, file: BinaryIO, place: str) -> Any:
        size = os.fstat(file.fileno()).st_size
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked and start >= size:
            file.close()
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return None
        self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(place))
        self.send_header("Content-Length", str(size - start))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        file.seek(start)
        return file

    def log_message(self, format: str, *args: Any) -> None:
        """To the package's logger, as everything else."""
        log.info("%s %s", self.address_string(), format % args)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A line for a client that goes away, and for a file that cannot be read to its end."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            log.info("%s %s", client_address[0], error)
        else:
            super().handle_error(request, client_address)


def _files(zoo: Path) -> frozenset[str]:
    """What may be asked for now, by its place in the address.

    Raises:
        UserError: no zoo there.
        OSError: it is gone.
    """
    stat = (zoo / INDEX).stat()
    return _listed(zoo, (stat.st_ino, stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=1)
def _listed(zoo: Path, written: tuple[int, ...]) -> frozenset[str]:
    """The files of the index that was ``written``: the same ones until it is another."""
    files = {INDEX, INDEX_SIGNATURE, PAGE}
    for name, line in Store(FolderRoot(zoo)).index().entries.items():
        files |= {f"{name}/{file}" for file in (*line.files, SIGNATURE)}
        files.add(figure_of(line.dataset))
    return frozenset(files)


def make_server(zoo: Path, host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """A server of a zoo's folder, not yet serving; port 0 takes a free one.

    Raises:
        UserError: no zoo there, a host that is not this machine, or the port is taken.
    """
    Store(FolderRoot(zoo)).index()
    if not 0 <= port < 2**16:
        raise UserError(f"--port: expected a number from 0 to {2**16 - 1}, got {port}.")
    family, address = _address(host, port)
    handler = type("Handler", (_Handler,), {"zoo": zoo})
    try:
        return type("Server", (_Server,), {"address_family": family})(address, handler)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise _no_host(host, error) from None
        raise UserError(
            f"--port: {host}:{port} cannot be served ({error}). Give another."
        ) from None


def _address(host: str, port: int) -> tuple[int, Any]:
    """The family and the address of a host, IPv4's where there are several.

    Raises:
        UserError: there is none.
    """
    if not host:
        raise _no_host(host, None)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _no_host(host, error) from None
    first = min(found, key=lambda one: one[0] != socket.AF_INET)
    return first[0], first[4]


def _no_host(host: str, error: Exception | None) -> UserError:
    reason = "" if error is None else f" ({getattr(error, 'strerror', None) or error})"
    return UserError(
        f"--host: expected an address of this machine, got {host!r}{reason}. 127.0.0.1 is seen "
        f"from here alone, 0.0.0.0 are all that it has."
    )


def serve(zoo: Path, host: str, port: int) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: see :func:`make_server`.
    """
    with make_server(zoo, host, port) as server:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{server.server_address[1]}"
        make_console().print(f"{zoo} at {address}: LTPLUGINS_ZOO={address}", highlight=False)
        server.serve_forever()
