# SPDX-License-Identifier: MIT
"""What lies in a run's folder: ours, or somebody's."""

import logging
import shutil
from pathlib import Path

from ltplugins.core.errors import UserError
from ltplugins.core.files import is_temporary
from ltplugins.runs.mend import CONFIG
from ltplugins.runs.places import ARGS, RUN_FILE

log = logging.getLogger(__name__)

LOCK = ".lock"
# What a run and its evaluation write, beside run.json.
FILES = (
    "results.json",
    "gallery.npz",
    "metrics.csv",
    CONFIG,
    "divergence.json",
    "examples.npz",
    "segmentation.png",
)
FOLDERS = ("checkpoints", "features", "tensorboard", "mlruns")


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder without a run that has files of somebody's.

    Raises:
        UserError: the first names of what is there.
    """
    # A process killed while it opens a folder leaves the first two; they are written again.
    ours = {LOCK, CONFIG, "checkpoints"}
    found = [p for p in folder.iterdir() if p.name not in ours]
    found += [p for p in (folder / "checkpoints").glob("*") if p.name != ARGS]
    foreign = [p.name for p in found if not is_temporary(p)]
    if foreign:
        raise UserError(
            f"{folder} is not empty and holds no run (found {', '.join(foreign[:3])}). "
            f"Set output_dir to a new folder."
        )


def clear(folder: Path) -> None:
    """Remove what the run that was here has written; other files are left alone."""
    log.info("%s: the run that was here is replaced.", folder)
    # The first one first: another rank that looks now finds no run, and never a checkpoint of
    # the old one beside the facts of the new.
    for name in (RUN_FILE, *FILES):
        (folder / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
