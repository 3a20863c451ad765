# SPDX-License-Identifier: MIT
"""Arrays from .npy and .npz files that anybody may have written: nothing is unpickled.

NumPy and the zip reader below it raise nearly every class there is for a damaged file: EOFError,
``struct.error``, NotImplementedError for a method of compression, MemoryError for a head that asks
for more than the machine has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ltplugins.core.errors import UserError, first_sentence


@contextmanager
def array_file(path: str | Path) -> Iterator[None]:
    """Within it whatever goes wrong is the file's fault.

    Raises:
        UserError: in one line, for any error but one that is said already.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = first_sentence(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read as .npz or .npy: {reason}.") from None


def read_array(path: str | Path, mapped: bool = False) -> np.ndarray:
    """The array of an .npy file.

    Args:
        path: of the file.
        mapped: leave it on the disk: a set larger than memory still works.

    Raises:
        UserError: it is absent, damaged or another kind of file.
    """
    with array_file(path):
        found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise UserError(f"{path}: expected one array (.npy), got an archive of them (.npz).")
    return found


@contextmanager
def open_archive(path: str | Path) -> Iterator[np.lib.npyio.NpzFile]:
    """An .npz file, open.

    Raises:
        UserError: it is absent, damaged or another kind of file; also for what is read within.
    """
    with array_file(path):
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise UserError(f"{path}: expected an archive of arrays (.npz), got one array (.npy).")
        with archive:
            yield archive
