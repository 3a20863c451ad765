# SPDX-License-Identifier: MIT
"""``ltplugins zoo list`` and ``get``: what a zoo has, and copies of it. Light: no torch."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from ltplugins.catalogue.index import Headline, Index, Listing, require_name
from ltplugins.catalogue.store import Progress as Tell
from ltplugins.catalogue.store import Store, in_words
from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.files import atomic_folder
from ltplugins.stages.zoo.place import require_folder
from ltplugins.zoo.signature import SIGNATURE

# Columns of a list: an entry is one line. A narrow terminal folds it; cells would be cut to pieces.
_WIDE = 1000


def show_list(refresh: bool = False) -> None:
    """One line an entry: what it is, its first number, its size, whether it is here.

    Raises:
        UserError: the zoo cannot be read.
    """
    store = Store.of_environment()
    index = store.index(refresh)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "method", "data", "network", "epochs", "runs", "overall (%)", "size", ""):
        table.add_column(title, overflow="fold")
    for name, line in sorted(index.entries.items()):
        where = "here" if store.is_here(name, index) else ""
        table.add_row(
            name, line.method, line.dataset, line.backbone, str(line.epochs), str(line.runs),
            _headline(line.headline), in_words(line.size), where,
        )  # fmt: skip
    wide = make_console()
    wide.size = _WIDE, wide.height  # a width alone counts for nothing where TERM is dumb
    wide.print(table, soft_wrap=False)
    make_console().print(
        f"{len(index.entries)} in {store.root.label}; ltplugins zoo info NAME, zoo get NAME; "
        f"zoo://NAME stands wherever a checkpoint does",
        highlight=False,
    )


def _headline(found: Headline | None) -> str:
    if found is None or found.mean is None:
        return "n/a"
    spread = "" if found.std is None else f" ± {100 * found.std:.1f}"
    return f"{100 * found.mean:.1f}{spread} {found.protocol}"


def show_get(names: Sequence[str], to: Path | None = None) -> None:
    """Fetch entries, or find them here; with ``to`` copy them into a folder each below it.

    Args:
        names: of the entries; none = all of the zoo.
        to: a folder.

    Raises:
        UserError: no such entry, it cannot be had whole, or a copy's folder is taken.
    """
    store = Store.of_environment()
    index = store.index()
    chosen = _chosen(index, names, store)
    if to is not None:
        require_folder(to, "--to")
        taken = [to / name for name in chosen if os.path.lexists(to / name)]
        if taken:
            raise UserError(
                f"{taken[0]} exists: expected a free place for the copy. Give another --to."
            )
    for name, place in _fetch(store, index, chosen).items():
        if to is not None:
            _copy(place, index.entries[name], to / name)
            place = to / name
        make_console().print(f"zoo://{name}: {place}", highlight=False, markup=False)


def _copy(folder: Path, listing: Listing, place: Path) -> None:
    """Copy the files that the index lists, and the entry's own signature; nothing else travels."""
    own = folder / SIGNATURE
    signed = [SIGNATURE] if own.is_file() and not own.is_symlink() else []
    with atomic_folder(place) as tmp:
        for file in dict.fromkeys([*listing.files, *signed]):
            # A full disk is told as the copy's: shutil.copyfile would name the source.
            with open(folder / file, "rb") as source, open(tmp / file, "wb") as target:
                shutil.copyfileobj(source, target)


def fetched(store: Store, names: Sequence[str]) -> dict[str, Path]:
    """The folders of entries by name, with a bar on a terminal while they come.

    Args:
        store: of the zoo.
        names: of the entries; none = all.

    Raises:
        UserError: one that there is not, before any is fetched, or that cannot be had whole.
    """
    index = store.index()
    return _fetch(store, index, _chosen(index, names, store))


def _fetch(store: Store, index: Index, names: Sequence[str]) -> dict[str, Path]:
    with _bar() as tell:
        return {name: store.entry(name, tell, index) for name in names}


def _chosen(index: Index, names: Sequence[str], store: Store) -> list[str]:
    """The names, each once; none = all.

    Raises:
        UserError: the first that is no entry's.
    """
    for name in names:
        index.find(require_name(name), store.root.label)
    return list(dict.fromkeys(names)) or sorted(index.entries)


@contextmanager
def _bar() -> Iterator[Tell | None]:
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn()]
    with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as bar:
        tasks: dict[tuple[str, str], Any] = {}

        def tell(name: str, file: str, done: int, total: int) -> None:
            if (name, file) not in tasks:
                tasks[name, file] = bar.add_task(f"{name}/{file}", total=total)
            bar.update(tasks[name, file], completed=done)

        yield tell
