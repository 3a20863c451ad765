# SPDX-License-Identifier: MIT
"""``ltplugins export``: a model for programs that know nothing of this one."""

import os
from collections.abc import Collection

from ltplugins.core.console import make_console
from ltplugins.zoo.export import Form, export


def show_export(
    source: str | os.PathLike[str], folder: str | os.PathLike[str], forms: Collection[Form]
) -> None:
    """Export and say what is there.

    Raises:
        UserError: see :func:`ltplugins.zoo.export.export`.
    """
    path = export(source, folder, forms)
    files = ", ".join(sorted(file.name for file in path.iterdir()))
    make_console().print(f"written: {path} ({files}); README.md says how it is opened")
