# SPDX-License-Identifier: MIT
"""``ltplugins zoo list`` and ``get``: what a zoo has, and copies of it. Light: no torch."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from ltplugins.catalogue.index import Headline
from ltplugins.catalogue.store import Progress as Tell
from ltplugins.catalogue.store import Store, in_words
from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.files import atomic_folder


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
        where = "here" if store.is_here(name) else ""
        table.add_row(
            name, line.method, line.dataset, line.backbone, str(line.epochs), str(line.runs),
            _headline(line.headline), in_words(line.size), where,
        )  # fmt: skip
    console = make_console()
    if not console.is_terminal:  # lines are as long as they are
        console.width = 200
    console.print(table, soft_wrap=False)
    console.print(
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
    chosen = list(names) or sorted(store.index().entries)
    taken = [to / name for name in chosen if (to / name).exists()] if to is not None else []
    if taken:
        raise UserError(
            f"{taken[0]} exists: expected a free place for the copy. Give another --to."
        )
    for name, folder in zip(chosen, fetched(store, chosen), strict=True):
        place = folder
        if to is not None:
            place = to / name
            with atomic_folder(place) as tmp:
                shutil.copytree(folder, tmp, dirs_exist_ok=True)
        make_console().print(f"zoo://{name}: {place}", highlight=False, markup=False)


def fetched(store: Store, names: Sequence[str]) -> list[Path]:
    """The folders of entries, with a bar on a terminal while they come."""
    with _bar() as tell:
        return [store.entry(name, tell) for name in names]


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
