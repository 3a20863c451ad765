# SPDX-License-Identifier: MIT
"""Where the files of a run lie, by name."""

import re
from pathlib import Path

RUN_FILE = "run.json"  # a folder that has it holds a run
LAST = "last.ckpt"
LAST_CHECKPOINT = f"checkpoints/{LAST}"
PREVIOUS = "previous.ckpt"  # what last.ckpt was before
STOPPED = "stopped.ckpt"  # within an epoch, where a signal has ended the run
ARGS = "args.json"  # the config beside a checkpoint, where solo-learn's scripts look for it


def folder_of(checkpoint: Path) -> Path:
    """The run's folder that a checkpoint lies in, or of one that lies elsewhere, its place."""
    parent = checkpoint.parent
    return parent.parent if parent.name == "checkpoints" else parent


def name_of(path: str | Path) -> str:
    """What the folders of a run's later stages begin with: its own, or of a checkpoint that lies in
    no run's folder, the file's without its ending."""
    path = Path(path)
    if path.is_file():
        path = folder_of(path) if folder_of(path) != path.parent else path.with_suffix("")
    return str(path).rstrip("/")


def own_checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints to go on from, the newest first."""
    newest = [path for name in (STOPPED, LAST) if (path := folder / name).exists()]
    return [*newest, *earlier_checkpoints(folder)]


def earlier_checkpoints(folder: Path) -> list[Path]:
    """The whole-epoch checkpoints beside ``last.ckpt``, the newest first."""
    numbered = {
        int(match[1]): path
        for path in folder.glob("epoch=*.ckpt")
        if (match := re.fullmatch(r"epoch=(\d+)\.ckpt", path.name))
    }
    previous = folder / PREVIOUS
    return [
        *([previous] if previous.exists() else []),
        *(numbered[number] for number in sorted(numbered, reverse=True)),
    ]
