# SPDX-License-Identifier: MIT
"""``ltplugins zoo serve``: a zoo's folder over HTTP, for mirrors in a house and for tests.

It gives the index, the page, signatures and the files that the index lists, whole or from a byte
on, and nothing else that lies in the folder.
"""

import logging
import os
import re
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

_RANGE = re.compile(r"bytes=(\d+)-")


class _Handler(SimpleHTTPRequestHandler):
    """GET and HEAD of a zoo's files.

    Attributes:
        zoo: its folder; files: what may be asked for, by its place in the address.
    """

    zoo: Path
    files: frozenset[str]

    def send_head(self) -> Any:
        """Send the head, and return the file at the byte that its body begins with."""
        place = unquote(urlsplit(self.path).path).lstrip("/")
        if place not in self.files:
            self.send_error(HTTPStatus.NOT_FOUND, "no file of the zoo")
            return None
        try:
            file = open(self.zoo / place, "rb")  # noqa: SIM115
        except OSError:
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


def make_server(zoo: Path, host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """A server of a zoo's folder, not yet serving; port 0 takes a free one.

    Raises:
        UserError: no zoo there, or the port is taken.
    """
    index = Store(FolderRoot(zoo)).index()
    files = {INDEX, INDEX_SIGNATURE, PAGE}
    for name, line in index.entries.items():
        files |= {f"{name}/{file}" for file in (*line.files, SIGNATURE)}
        files.add(figure_of(line.dataset))
    handler = type("Handler", (_Handler,), {"zoo": zoo, "files": frozenset(files)})
    try:
        return ThreadingHTTPServer((host, port), handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--port: {host}:{port} cannot be served ({error}). Give another."
        ) from None


def serve(zoo: Path, host: str, port: int) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: no zoo there, or the port is taken.
    """
    with make_server(zoo, host, port) as server:
        address = f"http://{host}:{server.server_address[1]}"
        make_console().print(f"{zoo} at {address}: LTPLUGINS_ZOO={address}", highlight=False)
        server.serve_forever()
