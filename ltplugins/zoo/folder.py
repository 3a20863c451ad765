# SPDX-License-Identifier: MIT
"""A zoo's folder: its entries, and ``index.json`` and the page, which are made of them alone.

What lies there may be somebody's own. A file that no command of ours has written is not written
over, and what would stop a command at its end is refused at its beginning.
"""

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ltplugins.catalogue.files import CONFIG
from ltplugins.catalogue.index import (
    INDEX,
    SUFFIXES,
    FileFacts,
    Headline,
    Index,
    Listing,
    require_name,
    require_safe,
)
from ltplugins.core.errors import UserError
from ltplugins.core.files import is_temporary, sha256, write_text
from ltplugins.core.records import NewerForm
from ltplugins.zoo.card import FIGURE, card
from ltplugins.zoo.facts import EntryFacts, EntryProtocol, read_facts, require_zoo
from ltplugins.zoo.page import MARK, PAGE, REPORTED, zoo_page
from ltplugins.zoo.signature import INDEX_SIGNATURE, SIGNATURE
from ltplugins.zoo.words import network

log = logging.getLogger(__name__)


def entries_of(zoo: Path) -> dict[str, tuple[dict[str, Any], EntryFacts]]:
    """All entries of a folder, by name.

    Raises:
        UserError: a folder whose entry is called otherwise, or is damaged.
    """
    found = {}
    for path in sorted(zoo.iterdir()):
        if path.name.startswith(".") or not (path / CONFIG).is_file():
            continue
        try:
            config, facts = read_facts(path)
        except UserError as error:
            raise UserError(f"{error} Mend it, or move {path} out of the zoo.") from None
        if require_zoo(facts).name != path.name:
            raise UserError(
                f"{path} holds the entry {require_zoo(facts).name}: expected the folder's name. "
                f"Rename it."
            )
        found[path.name] = config, facts
    return found


def write_card(folder: Path) -> None:
    """Write an entry's page anew.

    Raises:
        UserError: it is no entry of a zoo.
    """
    write_text(folder / PAGE, card(*read_facts(folder)))


def write_pages(zoo: Path) -> Index:
    """Write ``index.json`` and ``README.md`` of a zoo anew, and return the former.

    Raises:
        UserError: see :func:`pages_of`.
    """
    index, page = pages_of(zoo)
    old = _old_index(zoo)
    if old is None:
        log.warning("%s was damaged; it is written anew, from the entries.", zoo / INDEX)
    _drop_signatures(zoo, old, index)
    index.write(zoo / INDEX)
    write_text(zoo / PAGE, page)
    return index


def pages_of(zoo: Path, anew: Collection[str] = ()) -> tuple[Index, str]:
    """``index.json`` and ``README.md`` of a zoo, as its entries make them; nothing is written.

    Args:
        zoo: the folder.
        anew: entries whose card and figure are written next: what these are now says nothing.

    Raises:
        UserError: what is there is no zoo's, or is of a newer form, an entry is damaged or holds a
            file that no zoo may have, or the table of what papers report is none.
    """
    _require_ours(zoo)
    found = entries_of(zoo)
    lines = {name: _listing(zoo / name, *of, name in anew) for name, of in found.items()}
    index = require_safe(Index(entries=lines), str(zoo))
    return index, zoo_page(found, index, zoo / REPORTED)


def _require_ours(zoo: Path) -> None:
    """Refuse a folder whose index or page is not a zoo's: it would be written over."""
    file, page = zoo / INDEX, zoo / PAGE
    for path in (file, page):
        if os.path.lexists(path) and not path.is_file():
            raise UserError(f"{path}: expected a file of the zoo, or none. Move it away.")
    if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise UserError(
            f"{page} is not the page of a zoo, and would be lost: expected one that 'ltplugins zoo "
            f"card' has written, or none. Move it away, or give another --zoo."
        )
    if _old_index(zoo) is None and not page.exists():
        raise UserError(
            f"{file} is damaged or of another program, and would be lost: expected that of a zoo, "
            f"or none. Move it away, or give another --zoo."
        )


def _old_index(zoo: Path) -> Index | None:
    """The index that is there; None where it is damaged, for all of it is in the entries.

    Raises:
        NewerForm: a later version of this package has written it.
    """
    file = zoo / INDEX
    try:
        return Index.read(file) if file.exists() else Index()
    except NewerForm:
        raise
    except UserError:
        return None


def _drop_signatures(zoo: Path, old: Index | None, index: Index) -> None:
    """Remove signatures of what is another now: they would vouch for nothing."""
    if old != index:
        (zoo / INDEX_SIGNATURE).unlink(missing_ok=True)
    for name, line in index.entries.items():
        if old and name in old.entries and old.entries[name].files != line.files:
            (zoo / name / SIGNATURE).unlink(missing_ok=True)


def require_free(zoo: Path, name: str, replace: bool) -> Path:
    """The folder that a new entry gets.

    Args:
        zoo: the zoo's folder.
        name: of the entry.
        replace: an entry of this name that is there.

    Raises:
        UserError: the name is none, is that of a file, or is taken: with ``replace`` by what is no
            entry, or holds more than one.
    """
    place = zoo / require_name(name)
    if place.suffix in (*SUFFIXES, ".csv"):
        raise UserError(
            f"--name: expected the name of a folder, got {name}: files of a zoo end in "
            f"{place.suffix}. Leave the ending out."
        )
    if not os.path.lexists(place):
        return place
    if not replace:
        raise UserError(
            f"{place} exists: expected a new name. Give another --name, or --replace to write it "
            f"anew."
        )
    try:
        read_facts(place)
        own = {SIGNATURE, *(path.name for path in files_of(place))}
        for path in sorted(place.iterdir()):
            if path.name not in own and not is_temporary(path):
                raise UserError(f"{path} would be lost.")
    except UserError as error:
        raise UserError(
            f"--replace: expected an entry and nothing else in {place}: {error} Move it away, or "
            f"give another --name."
        ) from None
    return place


def files_of(folder: Path) -> list[Path]:
    """An entry's files but its signature, which is made of the others, after the index.

    Raises:
        UserError: a folder, a link or a file of another kind is among them.
    """
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in found if path.name != SIGNATURE]
    for path in found:
        if path.is_symlink() or not path.is_file() or path.suffix not in SUFFIXES:
            raise UserError(
                f"{path}: expected files alone, no link, of the kinds {', '.join(SUFFIXES)}. Move "
                f"it out of the entry."
            )
    return found


def _listing(
    folder: Path, config: Mapping[str, Any], facts: EntryFacts, anew: bool = False
) -> Listing:
    zoo = require_zoo(facts)
    files = [file for file in files_of(folder) if not (anew and file.name in (PAGE, FIGURE))]
    assert facts.origin is not None
    return Listing(
        files={file.name: FileFacts(sha256(file), file.stat().st_size) for file in files},
        method=facts.origin.label or facts.origin.method,
        dataset=str(facts.dataset),
        backbone=network(config, facts),
        epochs=int(facts.epochs or 0),
        runs=len(zoo.runs),
        opened_by="timm" if "architecture" in config else "load_backbone",
        headline=_headline(zoo.protocols),
    )


def _headline(protocols: Mapping[str, EntryProtocol]) -> Headline | None:
    """The kNN of the probe bank, or the first protocol that there is."""
    name = next((n for n, p in protocols.items() if p.kind == "knn"), next(iter(protocols), None))
    if name is None:
        return None
    overall = protocols[name].overall
    return Headline(name, overall.mean, overall.std)
