# SPDX-License-Identifier: MIT
"""A file of features: names, features, labels where known, as .npz or .parquet, piece by piece.

Equal content is equal bytes: no time of writing is in it.

Legend: N images, K of them in a piece, D width of the features.
"""

import importlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from ltplugins.core.arrays import open_archive
from ltplugins.core.errors import UserError, install
from ltplugins.core.files import atomic_path
from ltplugins.core.records import Record, from_plain, parse_json, to_plain

FORMATS = (".npz", ".parquet")
_FACTS = "ltplugins"  # key of the facts in either form


@dataclass(frozen=True)
class About(Record):
    """What a file of features, or its pieces, are of.

    Attributes:
        key: of model, preprocessing, pictures and batches.
        model, images: in words.
    """

    FORM: ClassVar[int] = 1
    key: str
    model: str
    images: str
    version: int = FORM


@dataclass(frozen=True)
class Rows:
    """What stands beside the features.

    Attributes:
        names: N texts.
        labels: Int[N], -1 = none; None where no image has one.
        class_names: by label.
    """

    names: list[str]
    labels: np.ndarray | None
    class_names: tuple[str, ...]


def require_format(out: Path) -> None:
    """Refuse an ending that says no form, and a form whose library is missing.

    Raises:
        UserError: with the forms, or how to get the library.
    """
    if out.suffix not in FORMATS:
        raise UserError(f"--out: expected a file that ends with {' or '.join(FORMATS)}, got {out}.")
    if out.suffix == ".parquet":
        try:
            importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise UserError(
                f"--out {out}: .parquet needs pyarrow, which is not installed. In the checkout: "
                f"{install('parquet')}; or give an .npz."
            ) from None


def read_about(path: Path) -> About | None:
    """What a file says of itself; None for a file that is not of this program's."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            text = (pq.read_schema(path).metadata or {})[_FACTS.encode()].decode()
        else:
            with open_archive(path) as archive:
                text = str(archive[_FACTS])
        content = parse_json(text, path)
    except (OSError, ValueError, KeyError, AttributeError):  # pyarrow's are of these, too
        return None
    return from_plain(About, content, path, About.FORM)


def write_table(
    out: Path, about: About, rows: Rows, width: int, pieces: Iterable[np.ndarray]
) -> None:
    """Write the file, whole or not at all, with no more than a piece of the features in memory.

    Args:
        out: .npz (``features`` Float[N D], ``names``, ``labels``, ``class_names``) or .parquet
            (``name``, ``label``, ``class_name``, ``features``).
        about: what it is of.
        rows: of all pieces.
        width: D.
        pieces: Float[K D], in order.
    """
    text = json.dumps(to_plain(about), sort_keys=True)
    write = _write_parquet if out.suffix == ".parquet" else _write_npz
    with atomic_path(out) as tmp:
        write(tmp, text, rows, width, pieces)


def _write_npz(path: Path, text: str, rows: Rows, width: int, pieces: Iterable[np.ndarray]) -> None:
    arrays = {"names": np.asarray(rows.names, dtype=np.str_), _FACTS: np.asarray(text)}
    if rows.labels is not None:
        arrays["labels"] = rows.labels
        arrays["class_names"] = np.asarray(rows.class_names, dtype=np.str_)
    shape = (len(rows.names), width)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w") as archive:
        with _member(archive, "features") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, dtype="<f4").tobytes())
        for name, array in arrays.items():
            with _member(archive, name) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


@contextmanager
def _member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    # A fixed time, the earliest that zip knows.
    member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    with archive.open(member, "w", force_zip64=True) as file:
        yield file


def _write_parquet(
    path: Path, text: str, rows: Rows, width: int, pieces: Iterable[np.ndarray]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field("name", pa.string())]
    if rows.labels is not None:
        fields += [pa.field("label", pa.int64()), pa.field("class_name", pa.string())]
    fields.append(pa.field("features", pa.list_(pa.float32(), width)))
    schema = pa.schema(fields, metadata={_FACTS: text})
    start = 0
    with pq.ParquetWriter(path, schema) as writer:
        for piece in pieces:
            stop = start + len(piece)
            columns: dict[str, Any] = {"name": rows.names[start:stop]}
            if rows.labels is not None:
                some = [int(label) if label >= 0 else None for label in rows.labels[start:stop]]
                columns["label"] = some
                columns["class_name"] = [
                    None if label is None else rows.class_names[label] for label in some
                ]
            flat = pa.array(np.ascontiguousarray(piece, dtype=np.float32).reshape(-1))
            columns["features"] = pa.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(pa.table(columns, schema=schema))
            start = stop
