# SPDX-License-Identifier: MIT
"""``ltplugins zoo verify``: hold entries to their hashes, stored features and signatures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ltplugins.catalogue.index import INDEX
from ltplugins.catalogue.root import FolderRoot
from ltplugins.catalogue.store import Store
from ltplugins.core.console import make_console
from ltplugins.core.files import write_text
from ltplugins.stages.zoo.copies import fetched
from ltplugins.zoo.check import require_features
from ltplugins.zoo.entry import open_entry
from ltplugins.zoo.facts import read_facts, require_zoo
from ltplugins.zoo.signature import INDEX_SIGNATURE, SIGNATURE, require_signed, require_signing


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
    for name, folder in fetched(store, names).items():
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
