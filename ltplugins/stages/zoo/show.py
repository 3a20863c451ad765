# SPDX-License-Identifier: MIT
"""``ltplugins zoo list``, ``info``, ``get`` and ``verify``: what a zoo has, and copies of it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from ltplugins.catalogue.index import INDEX, Headline
from ltplugins.catalogue.root import FolderRoot
from ltplugins.catalogue.store import Progress as Tell
from ltplugins.catalogue.store import Store, in_words
from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.files import atomic_folder, write_text
from ltplugins.zoo.card import network, require_zoo
from ltplugins.zoo.check import require_features
from ltplugins.zoo.entry import open_entry
from ltplugins.zoo.page import read_facts
from ltplugins.zoo.signature import INDEX_SIGNATURE, SIGNATURE, require_signed, require_signing
from ltplugins.zoo.words import percent, rule_of


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


def show_info(name: str) -> None:
    """What an entry says of itself; it is fetched where it is not here.

    Raises:
        UserError: no such entry, or it cannot be had.
    """
    folder = _fetched(Store.of_environment(), [name])[0]
    config, facts = read_facts(folder)
    zoo, origin = require_zoo(facts), facts.origin
    assert origin is not None
    split = origin.split
    lines = {
        "entry": f"zoo://{name}",
        "folder": str(folder),
        "network": f"{network(config, facts)}, {facts.num_features} features",
        "method": f"{origin.method}: {zoo.summary}",
        "data": f"{facts.dataset}: {split.description}, {split.num_samples} images",
        "trained": f"{facts.epochs} epochs with {origin.host}, {zoo.shipped.hardware}",
        "weights": f"of {zoo.shipped.label}, one of {len(zoo.runs)} run(s); sha256 {facts.sha256}",
        "licence": f"{zoo.license}; images: {zoo.data_license or 'not stated'}",
        "opened by": "timm" if "architecture" in config else "load_backbone alone",
    }
    for protocol, entry in zoo.protocols.items():
        groups = entry.groups.get(rule_of(entry) or "", {})
        told = ", ".join(f"{key} {percent(value)}" for key, value in groups.items())
        lines[protocol] = f"overall {percent(entry.overall)}" + (f"; {told}" if told else "")
    console = make_console()
    for key, value in lines.items():
        console.print(f"{key:<18} {value}", highlight=False, markup=False)


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
    for name, folder in zip(chosen, _fetched(store, chosen), strict=True):
        place = folder
        if to is not None:
            place = to / name
            with atomic_folder(place) as tmp:
                shutil.copytree(folder, tmp, dirs_exist_ok=True)
        make_console().print(f"zoo://{name}: {place}", highlight=False, markup=False)


def show_verify(names: Sequence[str], key: Path | None = None) -> None:
    """Hold entries to their hashes, their stored features, and with ``key`` to their signatures.

    Args:
        names: of the entries; none = all of the zoo.
        key: a public key, PEM.

    Raises:
        UserError: the first thing that is not as it should be.
    """
    store = Store.of_environment()
    console = make_console()
    if key is not None:
        require_signing()
        with _signed_index(store) as (index, signature):
            require_signed(index, signature, key)
        console.print("index: signature fits", highlight=False)
    chosen = list(names) or sorted(store.index().entries)
    for name, folder in zip(chosen, _fetched(store, chosen), strict=True):
        _, facts = read_facts(folder)
        told = require_features(open_entry(folder), require_zoo(facts).check, f"zoo://{name}")
        own = folder / SIGNATURE
        if key is not None and own.exists():
            require_signed(folder, own, key)
            told += ", signature fits"
        console.print(f"zoo://{name}: files whole, {told}", highlight=False, markup=False)


@contextmanager
def _signed_index(store: Store) -> Iterator[tuple[Path, Path]]:
    """The index as it is used here, and the signature that lies beside it in the zoo."""
    if isinstance(store.root, FolderRoot):
        yield store.root.path / INDEX, store.root.path / INDEX_SIGNATURE
        return
    store.index()
    signature = store.folder / INDEX_SIGNATURE
    write_text(signature, store.read(INDEX_SIGNATURE))
    yield store.folder / INDEX, signature


def _fetched(store: Store, names: Sequence[str]) -> list[Path]:
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
