# SPDX-License-Identifier: MIT
"""``ltplugins features``: features of any images by any model, into one file."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.files import expanded
from ltplugins.data.sources.given import open_images, require_pictures
from ltplugins.data.sources.pictures import MAX_PIXELS
from ltplugins.eval.extractor import find_device
from ltplugins.eval.table import TableJob, extract_table
from ltplugins.eval.table_file import require_format
from ltplugins.training.progress import make_bar
from ltplugins.zoo.load import load_backbone

log = logging.getLogger(__name__)

_SKIP = ", or leave it out: --on-corrupt skip"


def features(
    model: str | os.PathLike[str],
    images: str,
    out: str | os.PathLike[str],
    *,
    root: str | None = None,
    device: str = "auto",
    batch_size: int = 256,
    num_workers: int = 4,
    on_corrupt: Literal["fail", "skip"] = "fail",
    max_pixels: int | None = None,
) -> Path:
    """Write names, features and known labels; called again it goes on where it was stopped.

    Args:
        model: whatever ``load_backbone`` opens.
        images: whatever ``open_images`` opens, with ``root``.
        out: a new .npz or .parquet file.
        device: auto, cpu, cuda, cuda:1.
        batch_size: images at once; with that of the evaluation, its features to the last bit.
        num_workers: processes that decode image files.
        on_corrupt: ``skip`` leaves an image out that cannot be decoded.
        max_pixels: a file of more is not decoded; None = PIL's own limit.

    Returns:
        ``out``.

    Raises:
        UserError: no such model or images, an ``out`` that is taken or cannot be written, or a
            damaged image.
    """
    path = expanded(out)
    require_format(path)
    chosen = find_device(device)
    if path.is_dir():
        raise UserError(f"--out: expected a file, got the folder {path}. Give a file's name.")
    given = open_images(images, root, max_pixels or MAX_PIXELS)
    if on_corrupt == "fail":  # before a network is opened, and a folder is made
        require_pictures(given, _SKIP)
    backbone = load_backbone(model)
    job = TableJob(
        backbone,
        backbone.provenance.label,
        backbone.transform,
        given,
        images,
        device=chosen,
        batch_size=batch_size,
        num_workers=0 if given.source.images is not None else num_workers,
        on_corrupt=on_corrupt,
    )
    with _bar(len(given.names)) as tell:
        is_new = extract_table(job, path, tell)
    if not is_new:
        log.info("%s is complete: nothing to extract.", path)
    return path


def show_features(model: str, images: str, out: str, **options: object) -> None:
    """Extract and say what is there.

    Raises:
        UserError: see :func:`features`.
    """
    path = features(model, images, out, **options)  # type: ignore[arg-type]
    make_console().print(f"written: {path}", highlight=False)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line for each tenth elsewhere."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        told = 0

        def say(done: int) -> None:
            nonlocal told
            if done * 10 // total > told:
                told = done * 10 // total
                log.info("features of %d images of %d", done, total)

        yield say
        return
    with make_bar(console) as bar:
        task = bar.add_task("features", total=None, facts=["looking at the pictures"])

        def draw(done: int) -> None:
            bar.update(task, total=total, completed=done, facts=[f"{done} of {total} images"])

        yield draw
