# SPDX-License-Identifier: MIT
"""Images with masks under Lightning: loaders of each process.

Legend: B batch, H, W of an image.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltplugins.data.patience import PatientLoader
from ltplugins.data.samplers.shuffle import ShuffleSampler
from ltplugins.downstream.segmentation.options import IGNORE
from ltplugins.downstream.segmentation.pairs import Pairs
from ltplugins.downstream.segmentation.views import PlainView, TrainView

Sample = tuple[Tensor, Tensor]
_MULTIPLE = 32  # pixels that every encoder's strides divide


class _EpochKeys(ShuffleSampler):
    """Draws epoch * N + index, so that worker processes know the epoch; as many on every rank."""

    def __len__(self) -> int:
        return self.size // self.world_size

    def __iter__(self) -> Iterator[int]:
        return iter((self.epoch * self.size + self.positions()[: len(self)]).tolist())


class _Training(Dataset[Sample]):
    def __init__(self, pairs: Pairs, view: TrainView) -> None:
        self.pairs, self.view = pairs, view

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int) -> Sample:
        epoch, index = divmod(key, len(self.pairs))
        return self.view(*self.pairs.pair(index), epoch, index)


class _Plain(Dataset[Sample]):
    def __init__(self, pairs: Pairs, view: PlainView, indices: Sequence[int]) -> None:
        self.pairs, self.view, self.indices = pairs, view, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Sample:
        return self.view(*self.pairs.pair(self.indices[place]))


class MaskModule(pl.LightningDataModule):
    """The data of a Trainer.

    Args:
        train, val: parts; without the second there is no validation.
        view: of training images; plain: of the others.
        batch_size: B of each process.
        num_workers: of each loader.
    """

    def __init__(
        self,
        train: Pairs,
        val: Pairs | None,
        view: TrainView,
        plain: PlainView,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.train, self.val, self.view, self.plain = train, val, view, plain
        self.batch_size, self.num_workers = batch_size, num_workers

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches (Float[B 3 S S], Int[B S S]); the last, short one is dropped."""
        rank, world_size = self._place
        sampler = _EpochKeys(len(self.train), seed=self.view.seed, rank=rank, world_size=world_size)
        return PatientLoader(
            _Training(self.train, self.view),
            self.batch_size,
            sampler=sampler,
            drop_last=True,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[Sample] | list[Any]:
        """This rank's share of the validation part: matrices of the ranks are summed."""
        if self.val is None:
            return []
        rank, world_size = self._place
        return plain_loader(
            self.val, self.plain, self.batch_size, self.num_workers,
            range(rank, len(self.val), world_size),
        )  # fmt: skip

    @property
    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def plain_loader(
    pairs: Pairs,
    view: PlainView,
    batch_size: int,
    num_workers: int,
    indices: Sequence[int] | None = None,
) -> DataLoader[Sample]:
    """Images in order without any draw, padded to one size: (Float[B 3 H W], Int[B H W])."""
    chosen = range(len(pairs)) if indices is None else indices
    return PatientLoader(
        _Plain(pairs, view, chosen),
        batch_size,
        num_workers=num_workers,
        collate_fn=pad_batch,
        generator=torch.Generator(),
    )


def pad_batch(samples: Sequence[Sample]) -> Sample:
    """Stack images of any sizes, padded below and on the right to a size that all encoders take.

    An image's padding is 0, the mean that was subtracted; a mask's is no class.
    """
    sides = [max(image.shape[d] for image, _ in samples) for d in (1, 2)]
    height, width = (-(-side // _MULTIPLE) * _MULTIPLE for side in sides)

    def padded(x: Tensor, value: float) -> Tensor:
        return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]), value=value)

    images = torch.stack([padded(image, 0.0) for image, _ in samples])
    return images, torch.stack([padded(mask, IGNORE) for _, mask in samples])
