# SPDX-License-Identifier: MIT
"""A zoo of files that are no models, and a server that gives them as badly as it is told to."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ltplugins.core.files import sha256

NAME = "simclr-tiny"
FILES = ("config.json", "model.safetensors", "README.md")


def write_zoo(folder: Path, name: str = NAME, seed: int = 0) -> Path:
    """A zoo of one entry, whose weights are 5,000 bytes of noise."""
    entry = folder / name
    entry.mkdir(parents=True)
    (entry / "config.json").write_text("{}")
    (entry / "README.md").write_text("# an entry\n")
    (entry / "model.safetensors").write_bytes(random.Random(seed).randbytes(5000))
    write_index(folder, {name: listing_of(entry)})
    return folder


def listing_of(entry: Path) -> dict[str, Any]:
    """An entry's line of an index, as JSON has it."""
    facts = {f: {"sha256": sha256(entry / f), "size": (entry / f).stat().st_size} for f in FILES}
    told = {"method": "simclr", "dataset": "custom", "backbone": "test_resnet"}
    return {"files": facts, **told, "epochs": 3, "runs": 1}


def write_index(folder: Path, entries: dict[str, Any]) -> None:
    (folder / "index.json").write_text(json.dumps({"version": 1, "entries": entries}))


Answer = Callable[[BaseHTTPRequestHandler, Path], None]


class Server:
    """A server of a folder.

    Attributes:
        answers: what it does for the end of a path, instead of sending the file.
        asked: the paths that were asked for, with the ``Range`` that came with them.
        over: set when the test is over, for answers that wait.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.answers = folder, dict[str, Answer]()
        self.asked: list[tuple[str, str | None]] = []
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append((self.path, self.headers.get("Range")))
                file = server.folder / self.path.lstrip("/")
                for end, answer in server.answers.items():
                    if self.path.endswith(end):
                        answer(self, file)
                        return
                plain(self, file)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server on a free port of this machine, for as long as the block lasts."""
    server = Server(folder)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, content: bytes, status: int = 200, **head: str) -> None:
    """A whole answer; ``head`` in words with underscores."""
    handler.send_response(status)
    head = {"Content_Length": str(len(content)), **head}
    for key, value in head.items():
        handler.send_header(key.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def plain(handler: BaseHTTPRequestHandler, file: Path) -> None:
    """The file as it is, from the byte that was asked for."""
    asked = handler.headers.get("Range")
    content = file.read_bytes()
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    send(handler, content[start:], 206 if asked else 200)


def cut(handler: BaseHTTPRequestHandler, file: Path) -> None:
    """The head of the whole file, half of what is left of it, and the end of the connection."""
    asked = handler.headers.get("Range")
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    content = file.read_bytes()[start:]
    half = content[: len(content) // 2]
    send(handler, half, 206 if asked else 200, Content_Length=str(len(content)))
    handler.close_connection = True
