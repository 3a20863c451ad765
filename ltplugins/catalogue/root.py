# SPDX-License-Identifier: MIT
"""Where a zoo is: a folder, an address, or a repository of Hugging Face's.

``LTPLUGINS_ZOO`` says which; without it the folder ``zoo`` of this checkout.
"""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from ltplugins.catalogue.index import FileFacts
from ltplugins.core.errors import UserError
from ltplugins.core.files import expanded, sha256

VARIABLE = "LTPLUGINS_ZOO"
_HUB = "hf://"
_LARGEST_TEXT = 16 << 20  # bytes
_EXPECTED = "a folder, an address (https://...) or hf://ORGANISATION/REPOSITORY"

Tell = Callable[[int], None]  # is called with the bytes of a file that are there


class Root(Protocol):
    """A place that entries are fetched from."""

    @property
    def label(self) -> str:
        """What the user has written."""

    def read(self, file: str) -> str:
        """The text of a small file beside the entries, such as ``index.json``.

        Args:
            file: its name.

        Raises:
            UserError: it cannot be had.
        """

    def fetch(self, name: str, file: str, facts: FileFacts, target: Path, tell: Tell) -> None:
        """Fill ``target`` with a file of an entry, and check it.

        Raises:
            UserError: it cannot be had, or is another file.
        """


@dataclass(frozen=True)
class FolderRoot:
    """A folder of this machine, whose entries are used where they lie."""

    path: Path

    @property
    def label(self) -> str:
        """The folder."""
        return str(self.path)

    def read(self, file: str) -> str:
        """See :class:`Root`."""
        try:
            return (self.path / file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UserError(
                f"{VARIABLE}: {self.path} holds no zoo: {file} cannot be read ({reason}). "
                f"Expected {_EXPECTED}."
            ) from None

    def fetch(self, name: str, file: str, facts: FileFacts, target: Path, tell: Tell) -> None:
        """See :class:`Root`; no file of a folder is fetched."""
        raise AssertionError("entries of a folder are used where they lie")


@dataclass(frozen=True)
class HttpRoot:
    """An address below which ``index.json`` and the entries lie.

    Attributes:
        address: without a name and a password, for messages have it.
        auth: these; None where none are needed.
    """

    address: str
    auth: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The address."""
        return self.address

    def read(self, file: str) -> str:
        """See :class:`Root`."""
        from ltplugins.catalogue.download import fetch_text

        with _scratch() as scratch:
            return fetch_text(f"{self.label}/{file}", scratch / file, _LARGEST_TEXT, self.auth)

    def fetch(self, name: str, file: str, facts: FileFacts, target: Path, tell: Tell) -> None:
        """See :class:`Root`."""
        from ltplugins.catalogue.download import fetch_file

        fetch_file(f"{self.label}/{name}/{file}", target, facts, tell, self.auth)


@dataclass(frozen=True)
class HubRoot:
    """A repository of Hugging Face's, fetched by its own library, which resumes and checks."""

    repo: str

    @property
    def label(self) -> str:
        """As it is written."""
        return f"{_HUB}{self.repo}"

    def read(self, file: str) -> str:
        """See :class:`Root`."""
        with _scratch() as scratch:
            found = Path(self._download(file, scratch))
            try:
                return found.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{self.label}/{file}: expected text, got other bytes.") from None

    def fetch(self, name: str, file: str, facts: FileFacts, target: Path, tell: Tell) -> None:
        """See :class:`Root`."""
        found = Path(self._download(f"{name}/{file}", target.parent / ".hub"))
        if found.stat().st_size != facts.size or sha256(found) != facts.sha256:
            shutil.rmtree(target.parent / ".hub", ignore_errors=True)
            raise UserError(
                f"{self.label}/{name}/{file}: what came is not the file of the index (its sha256 "
                f"or size is another). Nothing was kept."
            )
        os.replace(found.resolve(), target)
        tell(facts.size)

    def _download(self, path: str, scratch: Path) -> str:
        import huggingface_hub

        endpoint: Any = os.environ.get("HF_ENDPOINT") or None
        try:
            return huggingface_hub.hf_hub_download(
                self.repo, path, local_dir=scratch, endpoint=endpoint
            )
        except Exception as error:  # of httpx, and its own: there are a dozen
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # of this machine
            raise UserError(
                f"{self.label}/{path} cannot be had ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:160]})."
            ) from None


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder that is gone afterwards, not below the cache: a wrong address leaves nothing."""
    with tempfile.TemporaryDirectory(prefix="ltplugins-") as folder:
        yield Path(folder)


def find_root() -> FolderRoot | HttpRoot | HubRoot:
    """The zoo that ``LTPLUGINS_ZOO`` names.

    Raises:
        UserError: it names none, or it is not set and there is no checkout.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text:
        return parse_root(text)
    own = Path(__file__).resolve().parents[2] / "zoo"
    if not (own.is_dir() and (own.parent / "pyproject.toml").is_file()):
        raise UserError(f"{VARIABLE} is not set and there is no checkout: expected {_EXPECTED}.")
    return FolderRoot(own)


def parse_root(text: str) -> FolderRoot | HttpRoot | HubRoot:
    """The zoo of a text.

    >>> parse_root("hf://me/zoo"), parse_root("https://example.org/zoo/").label
    (HubRoot(repo='me/zoo'), 'https://example.org/zoo')

    Raises:
        UserError: neither a folder nor an address.
    """
    if text.startswith(_HUB):
        repo = text.removeprefix(_HUB).strip("/")
        if len([part for part in repo.split("/") if part]) != 2:
            raise UserError(f"{VARIABLE}: expected {_EXPECTED}, got {text}.")
        return HubRoot(repo)
    if "://" in text:
        return _parse_address(text)
    return FolderRoot(expanded(text).absolute())


def _parse_address(text: str) -> HttpRoot:
    """An address below which files can be asked for: what a library meets later is no line."""
    got = f"got {re.sub(r'(?<=://).*@', '***@', text)}"  # without a password
    if "?" in text or "#" in text:
        raise UserError(
            f"{VARIABLE}: expected an address without '?' and '#', for names of files are put "
            f"behind it, {got}. Leave them out; in a password they are %3F and %23."
        )
    try:
        parts = urlsplit(text)
        text.encode()
        (parts.hostname or "").encode("idna")  # no label is empty or has more than 63 letters
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # also of a port that is no number
        is_one = False
    if not is_one or any(letter.isspace() for letter in text):
        raise UserError(f"{VARIABLE}: expected {_EXPECTED}, {got}.")
    given, _, host = parts.netloc.rpartition("@")
    auth = (unquote(parts.username or ""), unquote(parts.password or "")) if given else None
    return HttpRoot(f"{parts.scheme}://{host}{parts.path}".rstrip("/"), auth)


def key_of(label: str) -> str:
    """A folder's name for what was fetched from a place."""
    # A folder's name may be of bytes that are no text.
    return hashlib.sha256(label.encode(errors="surrogateescape")).hexdigest()[:12]
