# SPDX-License-Identifier: MIT
"""``ltplugins zoo sign``: each entry, then the index, by one private key."""

from pathlib import Path

from ltplugins.catalogue.index import INDEX
from ltplugins.catalogue.root import FolderRoot
from ltplugins.catalogue.store import Store, require_whole
from ltplugins.zoo.signature import INDEX_SIGNATURE, SIGNATURE, require_signing, sign


def sign_zoo(zoo: Path, key: Path) -> list[Path]:
    """Sign what the index lists, and the index; return the signatures.

    Args:
        zoo: the folder.
        key: the private key, PEM.

    Raises:
        UserError: the library is missing, an entry is not that of the index, or the key is none.
    """
    require_signing()
    index = Store(FolderRoot(zoo)).index()
    made = []
    for name, listing in index.entries.items():
        require_whole(zoo / name, listing)
    for name in index.entries:
        made.append(zoo / name / SIGNATURE)
        sign(zoo / name, made[-1], key)
    made.append(zoo / INDEX_SIGNATURE)
    sign(zoo / INDEX, made[-1], key)
    return made
