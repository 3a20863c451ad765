# SPDX-License-Identifier: MIT
"""Text of a list of ``path label`` lines, whichever editor or system has saved it."""

import codecs
import logging
from pathlib import Path

import numpy as np

from ltplugins.core.errors import UserError
from ltplugins.data.sources.base import MOST_CLASSES

log = logging.getLogger(__name__)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DIGITS = len(str(MOST_CLASSES - 1))
_SHOWN = 80  # letters of a line that a message shows
_EXPECTED = "Expected text with 'path label' per line"


def parse_list(
    path: Path, no_labels: bool, num_classes: int | None
) -> tuple[list[str], np.ndarray]:
    """Read the paths and labels of a list.

    Args:
        path: of the list.
        no_labels: lines are paths only; every label is -1.
        num_classes: that labels lie in, where it is known.

    Returns:
        N paths as they are written, Int[N].

    Raises:
        UserError: a bad line (with its number), an empty list, a file that is no such list.
    """
    names: list[str] = []
    targets: list[int] = []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        line = line.strip()
        if not line:
            continue
        if no_labels:
            names.append(line)
            targets.append(-1)
            continue
        # From the right: file names may have blanks in them.
        parts = line.rsplit(maxsplit=1)
        label = parts[1] if len(parts) == 2 else ""
        if not label.isdecimal():
            some = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
            raise UserError(f"{path}, line {number}: expected 'path label', got {some!r}.")
        if len(label.lstrip("0")) > _DIGITS:
            raise UserError(
                f"{path}, line {number}: expected a label below {MOST_CLASSES:,}, got {label[:20]}."
            )
        if num_classes is not None and int(label) >= num_classes:
            raise UserError(
                f"{path}, line {number}: label {label} is outside the {num_classes} classes "
                f"of the training part (0 to {num_classes - 1})."
            )
        names.append(parts[0])
        targets.append(int(label))
    if not names:
        raise UserError(f"{path}: the list is empty. {_EXPECTED}.")
    return names, np.asarray(targets, dtype=np.int64)


def _read(path: Path) -> str:
    """The text of a list: UTF-8 or UTF-16 with or without its mark, else Latin-1, which is said."""
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None and content.lstrip()[:1] in (b"{", b"["):
        raise UserError(
            f"{path} is JSON. {_EXPECTED}: of annotations in COCO's form (iNaturalist), each "
            f"image's file_name and category_id."
        )
    if encoding is None and b"\0" in content[:4096]:
        raise UserError(
            f"{path} is no text. {_EXPECTED}; for .npz and .npy set data.format: arrays."
        )
    try:
        return content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise UserError(f"{path} is damaged ({error}). {_EXPECTED}.") from None
        log.warning("%s is not UTF-8: read as Latin-1.", path)
        return content.decode("latin-1")
