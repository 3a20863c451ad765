# SPDX-License-Identifier: MIT
"""Features of any images into one file, in pieces that outlive a kill; ``table_file`` writes it.

Pieces lie beside the file, in a hidden folder, until all are there. Which model, which pictures and
which batches is one key: pieces or a file of another key are never added to or written over.

Legend: N images, K of them in a piece, B batch, D width of the features.
"""

import hashlib
import itertools
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.data.augment.deterministic import EvalTransform
from ltplugins.data.augment.plain import stream_through
from ltplugins.data.sources.contents import content_hash
from ltplugins.data.sources.given import GivenImages
from ltplugins.eval.features import cached_features, extract_features, feature_key
from ltplugins.eval.table_file import About, Rows, read_about, require_format, write_table

log = logging.getLogger(__name__)

_PIECE = 4096  # images, at least: what a kill may cost


@dataclass(frozen=True)
class TableJob:
    """A request for features.

    Attributes:
        model: in eval mode, with a width ``num_features``; Float[B 3 S S] to Float[B D].
        label: what it is called.
        transform: of a picture.
        given: the images.
        images: what they are called.
        device, batch_size, num_workers: of the extraction.
        on_corrupt: ``skip`` leaves an image out that cannot be decoded.
    """

    model: Any
    label: str
    transform: EvalTransform
    given: GivenImages
    images: str
    device: str = "cpu"
    batch_size: int = 256
    num_workers: int = 0
    on_corrupt: Literal["fail", "skip"] = "fail"

    def about(self) -> About:
        """What its file will be of; this reads all pictures' bytes where they are not known yet."""
        names = hashlib.sha256("\n".join(self.given.names).encode()).hexdigest()
        data = f"{content_hash(self.given.source)} {names} {self.batch_size}"
        key = feature_key(self.model, data, repr(self.transform))
        return About(key, self.label, self.images)


def extract_table(
    job: TableJob, out: Path, tell: Callable[[int], None] = lambda done: None
) -> bool:
    """Write the features to ``out``; called again it goes on where it was stopped.

    Args:
        job: what is asked for.
        out: .npz or .parquet.
        tell: is told how many images are done.

    Returns:
        False where the file was there already.

    Raises:
        UserError: ``out`` or its pieces are of something else, cannot be written, or another
            process is at it; a damaged image.
    """
    require_format(out)
    with _pieces_of(out) as folder:
        about = job.about()
        if out.exists():
            _refuse_other(read_about(out), about, out)
            shutil.rmtree(folder, ignore_errors=True)
            return False
        known = folder / "about.json"
        if known.exists():
            _refuse_other(About.read(known), about, folder)
        else:
            about.write(known)
        job.model.to(job.device)
        bounds = _bounds(len(job.given.names), job.batch_size)
        kept = []
        for start, stop in bounds:
            kept.append(_piece(job, folder, start, stop, tell)[1].numpy())
            _refuse_gaps(job, stop - start - len(kept[-1]), folder)
            tell(stop)
        rows = _rows(job, np.concatenate(kept))
        pieces = (_piece(job, folder, *bound, tell)[0].numpy() for bound in bounds)
        write_table(out, about, rows, job.model.num_features, pieces)
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _rows(job: TableJob, chosen: np.ndarray) -> Rows:
    """Names and labels of the images that could be decoded."""
    given, left_out = job.given, len(job.given.names) - len(chosen)
    if not len(chosen):
        raise UserError(f"{job.images}: none of {left_out} images can be decoded.")
    if left_out:
        log.warning(
            "%d of %d images cannot be decoded and are left out", left_out, len(given.names)
        )
    labels = None if given.labels is None else given.labels[chosen]
    return Rows([given.names[i] for i in chosen], labels, given.source.class_names)


def _bounds(total: int, batch_size: int) -> list[tuple[int, int]]:
    """Pieces of whole batches, so that the batches do not depend on where it was stopped."""
    size = -(-_PIECE // batch_size) * batch_size
    return [(start, min(start + size, total)) for start in range(0, total, size)]


def _piece(
    job: TableJob, folder: Path, start: int, stop: int, tell: Callable[[int], None]
) -> tuple[Tensor, Tensor]:
    """Float[K D] and Int[K], the places of its images; read, or extracted and kept."""
    return cached_features(f"{start:09d}", folder, lambda: _extract(job, start, stop, tell))


def _extract(
    job: TableJob, start: int, stop: int, tell: Callable[[int], None]
) -> tuple[Tensor, Tensor]:
    first = next(batches := _batches(job, start, stop, tell), None)
    if first is None:
        return torch.empty(0, job.model.num_features), torch.empty(0, dtype=torch.long)
    return extract_features(job.model, itertools.chain([first], batches), job.device)


def _batches(
    job: TableJob, start: int, stop: int, tell: Callable[[int], None]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images with their places, without those that cannot be decoded where that is allowed."""
    stream = stream_through(
        job.given.source,
        np.arange(start, stop),
        job.transform,
        batch_size=job.batch_size,
        num_workers=job.num_workers,
        on_corrupt=job.on_corrupt,
        way_out=", or leave it out: --on-corrupt skip",
    )
    for images, fine in stream:
        places = torch.arange(start, start + len(images))
        start += len(images)
        if fine.any():
            yield images[fine], places[fine]
        tell(start)


def _refuse_gaps(job: TableJob, missing: int, folder: Path) -> None:
    """A piece of an earlier call may have gaps that this one does not allow."""
    if missing and job.on_corrupt == "fail":
        raise UserError(
            f"{folder} leaves {missing} images out that cannot be decoded, as --on-corrupt skip "
            f"asked. Go on with --on-corrupt skip, or remove the folder."
        )


def _refuse_other(there: About | None, asked: About, path: Path) -> None:
    if there is None:
        raise UserError(
            f"{path} exists and is no file of features: it is never written over. Give another "
            f"--out."
        )
    if there.key != asked.key:
        raise UserError(
            f"{path} holds features of other content ({there.images} by {there.model}; asked for: "
            f"{asked.images} by {asked.model}, where model, pictures, their names or the batch "
            f"size are others). Give another --out, or remove it."
        )


@contextmanager
def _pieces_of(out: Path) -> Iterator[Path]:
    """The folder of the pieces, held by this process; gone again where nothing came into it."""
    folder = out.with_name(f".{out.name}.pieces")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"another process is writing {out}. Wait for it, or give another --out."
        ) from None
    except OSError as error:
        raise UserError(
            f"--out: expected a file that can be written, got {out} ({error.strerror}). Give "
            f"another one."
        ) from None
    try:
        yield folder
    finally:
        lock.release()
        if folder.exists() and not any(folder.glob("*.safetensors")):
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()
