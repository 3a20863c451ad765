# SPDX-License-Identifier: MIT
"""Decode and transform in worker processes, one seeded random stream per draw.

A draw is one slot of an epoch's global order. Its random numbers come from (seed, epoch, draw) and
from nothing else: not from the worker that does it, nor from how many workers or ranks there are.

Legend: B batch, V views.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ltplugins.core.errors import UserError
from ltplugins.core.seeding import mix_seed
from ltplugins.data.augment.batch.views import BatchedViews
from ltplugins.data.sources.base import CorruptImage, channels_first
from ltplugins.data.training_set import TrainingSet


class Draw(NamedTuple):
    """One slot of a batch: ``position`` in the training subset, ``number`` in the global order."""

    epoch: int
    number: int
    position: int


class ViewBatch(NamedTuple):
    """What a worker sends: Int[B], V tensors [B, 3, S, S], Int[B], files that were replaced."""

    indexes: Tensor
    views: list[Tensor]
    targets: Tensor
    corrupt: list[tuple[str, str]]


class RawBatch(NamedTuple):
    """A batch before its augmentation: what crosses to the training device.

    Attributes:
        indexes: Int[B].
        images: uint8 [B, C, H, W], or V tensors uint8 [B, 3, S, S] that are cropped already.
        targets: Int[B].
        corrupt: files that were replaced, with the reason.
        seed: of the batch's generator; a plain int, so that reading it never waits for a device.
        strength: Float32[B], or None; NumPy, so that it stays on the CPU, where parameters are
            drawn.
    """

    indexes: Tensor
    images: Tensor | list[Tensor]
    targets: Tensor
    corrupt: list[tuple[str, str]]
    seed: int
    strength: np.ndarray | None = None


class ViewDataset(Dataset[ViewBatch]):
    """The training images as a map from draws to a finished batch.

    Attributes:
        source: of all images that have an index.
        indices: Int[N], where in the source the image of an index is.
        targets: Int[N].

    Args:
        training: the images, what is done with a damaged one, and their strengths.
        transform: uint8 [H, W, 3] and a strength to V tensors; draws from torch's global
            generator only.
        seed: of the run.
    """

    def __init__(
        self,
        training: TrainingSet,
        transform: Callable[[np.ndarray, float], list[Tensor]],
        *,
        seed: int,
    ) -> None:
        # Only what a worker needs: it is sent there whole where processes are spawned.
        self.source, self.indices = training.images, training.indices
        self.targets = self.source.targets[self.indices]
        self.on_corrupt, self.strengths = training.cfg.on_corrupt, training.strengths
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, draws: list[Draw]) -> ViewBatch | str:
        """Make the batch of these draws, or the message that the main process is to raise."""
        images: list[np.ndarray | None] = []
        corrupt = []
        for draw in draws:
            try:
                images.append(self.source.load(int(self.indices[draw.position])))
            except CorruptImage as error:
                if self.on_corrupt == "fail":
                    return corrupt_message(error.path, error.reason)
                corrupt.append((error.path, error.reason))
                images.append(None)
        taken = replacements(images, corrupt)
        if isinstance(taken, str):
            return taken
        with _preserved_rng():
            per_image = [
                self._views(images[slot], draws[own], draws[slot].position)
                for own, slot in enumerate(taken)
            ]
        positions = torch.tensor([draws[slot].position for slot in taken], dtype=torch.int64)
        views = [torch.stack(view) for view in zip(*per_image, strict=True)]
        targets = torch.from_numpy(self.targets[positions.numpy()])
        return ViewBatch(positions, views, targets, corrupt)

    def _views(self, image: np.ndarray | None, draw: Draw, position: int) -> list[Tensor]:
        assert image is not None
        torch.default_generator.manual_seed(mix_seed(self.seed, draw.epoch, draw.number))
        strength = self._strength(np.array([position]))
        return self.transform(image, 0.0 if strength is None else float(strength[0]))

    def _strength(self, positions: np.ndarray) -> np.ndarray | None:
        return None if self.strengths is None else self.strengths.of(positions)


class BatchDataset(ViewDataset):
    """The same subset for the ``batched`` engine: slices arrays, or decodes and crops files.

    Args:
        views: augment here, in the worker, to uint8; None = yield :class:`RawBatch`.
    """

    def __init__(self, *args: Any, views: BatchedViews | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.views = views

    def __getitems__(self, draws: list[Draw]) -> RawBatch | ViewBatch | str:  # type: ignore[override]
        """Make the batch of these draws, or the message that the main process is to raise."""
        # The first draw's number is one batch's alone, over epochs' batches and ranks.
        seed = mix_seed(self.seed, draws[0].epoch, draws[0].number)
        if self.source.images is not None:
            raw = self._sliced(self.source.images, draws, seed)
        else:
            cropped = super().__getitems__(draws)
            if isinstance(cropped, str):
                return cropped
            raw = RawBatch(*cropped, seed=seed, strength=self._strength(cropped.indexes.numpy()))
        if self.views is None:
            return raw
        views = self.views.augment(raw.images, batch_generator(raw), raw.strength)
        return ViewBatch(raw.indexes, views, raw.targets, raw.corrupt)

    def _sliced(self, images: np.ndarray, draws: list[Draw], seed: int) -> RawBatch:
        positions = np.fromiter((d.position for d in draws), dtype=np.int64, count=len(draws))
        chosen = channels_first(images[self.indices[positions]])
        targets = torch.from_numpy(self.targets[positions])
        indexes = torch.from_numpy(positions)
        return RawBatch(indexes, chosen, targets, [], seed, self._strength(positions))


def batch_generator(batch: RawBatch) -> torch.Generator:
    """Make the generator of a raw batch, the same on every process."""
    return torch.Generator().manual_seed(batch.seed)


def identity(batch: Any) -> Any:
    """Collate nothing: the data set gives whole batches."""
    return batch


def replacements(
    images: Sequence[np.ndarray | None], corrupt: list[tuple[str, str]]
) -> list[int] | str:
    """Find for every slot the one whose image it shows, or say that no image is sound.

    A damaged slot takes the next valid one in turn: its index, its image, but other views.
    """
    valid = [slot for slot, image in enumerate(images) if image is not None]
    if not valid:
        path, reason = corrupt[0]
        return f"all {len(images)} images of a batch are corrupt, the first: {path} ({reason})."
    return [
        slot if image is not None else valid[slot % len(valid)] for slot, image in enumerate(images)
    ]


def corrupt_message(path: str, reason: str) -> str:
    return (
        f"corrupt image: {path} ({reason}). Replace or remove the file, "
        f"or set data.on_corrupt: skip to go on with the others."
    )


@contextmanager
def _preserved_rng() -> Iterator[None]:
    """Leave the main process's generator as it was; a worker's own is nobody else's."""
    if get_worker_info() is not None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        yield


def raise_if_message(batch: Any) -> Any:
    """Raise in the main process what a worker found: a message there would come as a traceback."""
    if isinstance(batch, str):
        raise UserError(batch)
    return batch
