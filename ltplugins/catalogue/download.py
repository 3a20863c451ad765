# SPDX-License-Identifier: MIT
"""One file over HTTP by pooch: goes on where it was cut off, and takes no more than it asked for.

A server may be broken or hostile. What it sends goes to a temporary name and counts for nothing
until its size and hash are those of the index.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

import pooch
import requests

from ltplugins.catalogue.index import FileFacts
from ltplugins.core.errors import UserError
from ltplugins.core.files import sha256

# Seconds to connect, and between two pieces.
TIMEOUT = (10.0, 30.0)
CHUNK = 1 << 14  # bytes; what is left of a piece that was cut is lost
# Times that a transfer is taken up again after it was cut off; each must have brought something.
_ATTEMPTS = 5
_NAME = "LTPLUGINS_ZOO may have a name and a password: https://NAME:PASSWORD@HOST/..."
_WAYS_OUT = {
    401: f". {_NAME}",
    403: f". It does not give it to everybody; {_NAME}",
    429: ". It is asked too often: wait, then give the same command",
}
Tell = Callable[[int], None]
Auth = tuple[str, str] | None  # name and password


class _Refused(Exception):
    """What a server sends cannot be the file; the text says why."""


class _Sink:
    """A file that is written to up to a size.

    Attributes:
        received: bytes of this transfer.
    """

    def __init__(self, file: BinaryIO, most: int, tell: Tell | None) -> None:
        self.file, self.most, self.tell, self.received = file, most, tell, 0

    def write(self, chunk: bytes) -> None:
        """Append, or refuse what is beyond the size."""
        if self.file.tell() + len(chunk) > self.most:
            raise _Refused(f"more than the {self.most} bytes that were expected")
        self.file.write(chunk)
        self.received += len(chunk)
        if self.tell is not None:
            self.tell(self.file.tell())

    def flush(self) -> None:
        """Pooch's call after each piece."""
        self.file.flush()

    def restart(self) -> None:
        """Begin anew: the server sends the whole file."""
        self.file.seek(0)
        self.file.truncate()


def fetch_file(
    url: str, target: Path, facts: FileFacts, tell: Tell | None = None, auth: Auth = None
) -> None:
    """Fill ``target``, which may hold a first part, and check it.

    Args:
        url: of the file.
        target: a temporary name; after a cut it keeps what has come.
        facts: what it must be.
        tell: is called with the bytes that are there.
        auth: name and password.

    Raises:
        UserError: in one line, what the server did instead. ``target`` is gone where its content
            is wrong.
    """
    if target.exists() and target.stat().st_size > facts.size:
        target.unlink()
    was_part = target.exists() and target.stat().st_size > 0
    for attempt in range(_ATTEMPTS):
        had = target.stat().st_size if target.exists() else 0
        if had == facts.size:
            break
        problem = _transfer(url, target, facts.size, tell, auth)
        if problem is not None and (attempt == _ATTEMPTS - 1 or target.stat().st_size <= had):
            raise UserError(f"{url}: {problem}. The same command goes on from there.")
    found = target.stat().st_size
    if found < facts.size:
        target.unlink()
        raise UserError(f"{url}: got {found} bytes, expected {facts.size}. Nothing was kept.")
    if sha256(target) == facts.sha256:
        return
    target.unlink()
    if was_part:  # of another file, perhaps
        fetch_file(url, target, facts, tell, auth)
        return
    raise UserError(
        f"{url}: the sha256 of what came is not {facts.sha256[:16]}..., which the index says. "
        f"Nothing was kept."
    )


def fetch_text(url: str, target: Path, most: int, auth: Auth = None) -> str:
    """A small file whose hash is not known, such as the index.

    Args:
        url: of the file.
        target: a temporary name, which is gone afterwards.
        most: bytes.
        auth: name and password.

    Raises:
        UserError: what the server did instead.
    """
    target.unlink(missing_ok=True)
    try:
        problem = _transfer(url, target, most, None, auth)
        if problem is not None:
            raise UserError(f"{url}: {problem}.")
        return target.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{url}: expected text, got other bytes.") from None
    finally:
        target.unlink(missing_ok=True)


def _transfer(url: str, target: Path, most: int, tell: Tell | None, auth: Auth) -> str | None:
    """Append to ``target``; return what broke off in between, None where it came to its end.

    Raises:
        UserError: a server that will not send it, however often it is asked.
        OSError: the disk does not take it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "r+b" if target.exists() else "w+b") as file:
        file.seek(0, os.SEEK_END)
        sink, had = _Sink(file, most, tell), file.tell()
        headers = {"Accept-Encoding": "identity"}
        if had:
            headers["Range"] = f"bytes={had}-"
        ask = pooch.HTTPDownloader(
            chunk_size=CHUNK,
            timeout=TIMEOUT,
            headers=headers,
            auth=auth,
            hooks={"response": lambda response, **_: _look_at(response, url, had, sink)},
        )
        try:
            ask(url, sink, None)
        except _Refused as refusal:
            file.truncate(had)
            raise UserError(f"{url}: {refusal}. Nothing was kept.") from None
        except requests.exceptions.HTTPError as error:
            raise UserError(f"{url}: {_status(error.response)}.") from None
        except ValueError as error:  # of a length, a piece's length, an address to go to
            raise UserError(
                f"{url}: no valid HTTP in address or answer ({_plain(error)})."
            ) from None
        except requests.exceptions.SSLError as error:
            if sink.received:
                return "the transfer was cut off"
            raise UserError(f"{url}: {_insecure(error)}") from None
        except (requests.exceptions.RequestException, ConnectionError, TimeoutError) as error:
            return _reason(error)
    return None


def _look_at(response: Any, url: str, had: int, sink: _Sink) -> None:
    """Refuse an answer by its head, before any of its body is read."""
    if response.is_redirect:
        there = urljoin(response.url, response.headers["location"])
        if urlsplit(there).hostname != urlsplit(url).hostname:
            raise _Refused(
                f"the server redirects to another host, {urlsplit(there).hostname}: set "
                f"LTPLUGINS_ZOO to an address that has the files itself"
            )
        return
    if response.status_code == 416:
        raise _Refused("the file there is shorter than what is here already")
    if not response.ok:
        return  # pooch raises its status
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/html"):
        raise _Refused("got an HTML page instead of the file")
    if had and response.status_code != 206:
        sink.restart()


def _status(response: Any) -> str:
    told = f"{response.status_code} {response.reason or ''}".strip()
    if response.status_code in (404, 410):
        return f"no such file there: {told}"
    return f"the server says {told}{_WAYS_OUT.get(response.status_code, '')}"


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer within {TIMEOUT[1]:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the transfer was cut off"
    if isinstance(error, requests.exceptions.ConnectionError):
        is_timeout = "timed out" in str(error)  # between two pieces
        return f"no answer within {TIMEOUT[1]:g} s" if is_timeout else "there is no connection"
    return f"{type(error).__name__}: {_plain(error)}"


def _insecure(error: Exception) -> str:
    """Why there is no connection by https, and what helps; it is in the words of OpenSSL."""
    words = re.search(r"\[SSL[^]]*\] (.+?)(?: \(_ssl|['\"])", str(error))
    reason = words[1] if words else _plain(error)
    way_out = (
        "A certificate that you trust is told by REQUESTS_CA_BUNDLE=FILE"
        if "certificate" in reason
        else "If it is a server without https, its address begins with http://"
    )
    return f"no connection by https: {reason}. {way_out}."


def _plain(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
