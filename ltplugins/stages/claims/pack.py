# SPDX-License-Identifier: MIT
"""Cells in tar files of limited size, to go on with elsewhere: unpacked into the claims' folder.

First what was measured, then the checkpoints of cells that are not done, whole, so that they
resume, then those of cells that others need, then the weights of the rest without the optimizer's
state. What does not fit into so many files is named.
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltplugins.core.files import atomic_path
from ltplugins.runs.places import LAST_CHECKPOINT, own_checkpoints
from ltplugins.stages.claims.cells import SETTING, Cell

_FILES = ("run.json", "config.yaml", "metrics.csv", "results.json")
_OF_RESUMING = ("optimizer_states", "lr_schedulers", "loops", "callbacks")
_TAR_BLOCK = 10_240
MEGABYTE = 1_000_000
MOST = 4  # 58 MB: from a lent machine 64 MiB come back, in eight files with the logs


@dataclass(frozen=True)
class Item:
    """A file of an archive.

    Attributes:
        name: within the claims' folder.
        content: its bytes.
    """

    name: str
    content: bytes

    @property
    def size(self) -> int:
        """Bytes in a tar file."""
        return 1024 + (len(self.content) + 511) // 512 * 512


def pack(
    cells: Sequence[Cell], root: Path, file: Path, megabytes: float = 14.5, most: int = MOST
) -> tuple[list[Path], list[str]]:
    """Write ``file``, then ``file`` with ``.2``, ``.3`` before its suffix, as they fill up.

    Args:
        cells: that have been begun.
        root: the claims' folder.
        file: the first archive.
        megabytes: at most, of each.
        most: archives.

    Returns:
        The archives, and the names of what found no room.
    """
    return _fill(_items(cells, root), file, megabytes, most)


def pack_folders(
    folders: Sequence[Path], file: Path, megabytes: float = 14.5, most: int = MOST
) -> tuple[list[Path], list[str]]:
    """Write folders of files, by their own names, as :func:`pack` does.

    Args:
        folders: whose files are packed, the most needed ones first.
        file: the first archive.
        megabytes: at most, of each.
        most: archives.

    Returns:
        The archives, and the names of what found no room.
    """
    items = (
        Item(f"{folder.name}/{path.name}", path.read_bytes())
        for folder in folders
        for path in sorted(folder.iterdir())
    )
    return _fill(items, file, megabytes, most)


def _fill(
    items: Iterator[Item], file: Path, megabytes: float, most: int
) -> tuple[list[Path], list[str]]:
    limit = int(megabytes * MEGABYTE) - _TAR_BLOCK
    bins: list[list[Item]] = []
    rooms: list[int] = []
    absent = []
    for item in items:
        fitting = next((i for i, room in enumerate(rooms) if room >= item.size), None)
        if fitting is None and (len(bins) == most or item.size > limit):
            absent.append(item.name)
            continue
        if fitting is None:
            bins.append([])
            rooms.append(limit)
            fitting = len(bins) - 1
        bins[fitting].append(item)
        rooms[fitting] -= item.size
    paths = [_numbered(file, i) for i in range(len(bins))]
    for path, content in zip(paths, bins, strict=True):
        _write(path, content)
    return paths, absent


def _items(cells: Sequence[Cell], root: Path) -> Iterator[Item]:
    """All files, the most needed ones first."""
    begun = [cell for cell in cells if (cell.path / "run.json").exists()]
    for path in sorted({cell.folder / SETTING for cell in begun}):
        if path.exists():
            yield Item(str(path.relative_to(root)), path.read_bytes())
    needed = {cell.of.name for cell in cells if cell.of is not None}
    for cell in begun:
        files = [cell.path / name for name in _FILES] + [cell.notes, cell.log]
        for path in files:
            if path.exists():
                yield Item(str(path.relative_to(root)), path.read_bytes())
    for cell in (cell for cell in begun if not cell.is_done):
        for path in own_checkpoints(cell.path / "checkpoints")[:1]:  # the place where it stopped
            yield Item(str(path.relative_to(root)), path.read_bytes())
    done = [cell for cell in begun if cell.has_weights]
    first = [cell for cell in done if cell.name in needed]
    rest = [cell for cell in done if cell.name not in needed]
    for cell in (*first, *rest):
        path = cell.path / LAST_CHECKPOINT
        yield Item(str(path.relative_to(root)), weights_alone(path))


def weights_alone(path: Path) -> bytes:
    """A checkpoint of a finished run without what only a continuation needs."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    stream = io.BytesIO()
    torch.save({k: v for k, v in content.items() if k not in _OF_RESUMING}, stream)
    return stream.getvalue()


def _numbered(file: Path, i: int) -> Path:
    return file if i == 0 else file.with_name(f"{file.stem}.{i + 1}{file.suffix}")


def _write(path: Path, items: Sequence[Item]) -> None:
    with atomic_path(path) as tmp, tarfile.open(tmp, "w") as tar:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.size = len(item.content)
            tar.addfile(info, io.BytesIO(item.content))
