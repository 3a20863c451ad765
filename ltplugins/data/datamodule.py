# SPDX-License-Identifier: MIT
"""The data of a run, from its config: sources, split, loaders, and the views of raw batches."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltplugins.data.augmentations import parse_augmentations
from ltplugins.data.config import parse_data_config
from ltplugins.data.engines import RawLoader, build_loader
from ltplugins.data.imbalance import make_split
from ltplugins.data.loader import Loader
from ltplugins.data.samplers import build_sampler
from ltplugins.data.source import CorruptImage, Source
from ltplugins.data.sources import build_source, has_test_part
from ltplugins.data.transforms import eval_transform
from ltplugins.data.view_dataset import RawBatch
from ltplugins.errors import UserError

log = logging.getLogger(__name__)


class EvalDataset(Dataset[tuple[Tensor, int]]):
    """A source under the deterministic transform: ``(float [3, S, S], target)``."""

    def __init__(self, source: Source, transform: Any) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        try:
            return self.transform(self.source.load(i)), int(self.source.targets[i])
        except CorruptImage as error:
            # Never skipped: a number without one of its images is another number.
            raise UserError(f"corrupt test image: {error.path} ({error.reason}).") from None


class LTDataModule(LightningDataModule):
    """Training and validation data of a config; everything is checked in ``__init__``.

    Attributes:
        source: all training images.
        split: the long-tailed subset of it.
        num_samples: N, images of the subset.
        num_classes: C.
        class_counts: int64 [C], by class id.
        record: statistics and size.
        class_names: C names.

    Args:
        cfg: solo-learn's config with ``data``, ``augmentations``, ``optimizer.batch_size`` and
            ``seed``; also ``data.imbalance``, ``data.engine``, ``data.sampler``.

    Raises:
        UserError: whatever does not fit, before any work starts.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.cfg = parse_data_config(cfg["data"])
        self.blocks = parse_augmentations(cfg["augmentations"])
        self.batch_size = int(cfg["optimizer"]["batch_size"])
        self.seed = int(cfg.get("seed", 5))  # solo-learn's default
        self.source = build_source(self.cfg, "train")
        self.split = make_split(self.source.targets, self.source.num_classes, self.cfg.imbalance)
        self.val_source = build_source(self.cfg, "test") if has_test_part(self.cfg) else None
        self.targets: np.ndarray = self.source.targets[self.split.indices]
        self._loader: Loader | None = None
        # Built once here so that a wrong sampler, engine or batch size is said now.
        self._build(rank=0, world_size=1)

    @property
    def num_samples(self) -> int:
        return len(self.split.indices)

    @property
    def num_classes(self) -> int:
        return self.source.num_classes

    @property
    def class_counts(self) -> np.ndarray:
        return self.split.class_counts

    @property
    def record(self) -> Any:
        return self.source.record

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    def train_dataloader(self) -> Loader:
        """The loader of this rank.

        With the engine ``batched`` and an accelerator it yields raw batches, which
        :meth:`on_after_batch_transfer` augments there; on a CPU the worker processes augment.
        """
        trainer = self.trainer
        if trainer is None:
            self._loader = self._build(rank=0, world_size=1)
        else:
            on_device = trainer.strategy.root_device.type != "cpu"
            self._loader = self._build(trainer.global_rank, trainer.world_size, raw=on_device)
        return self._loader

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Batches ``[X, targets]``; an empty list where there is no test part."""
        if self.val_source is None:
            return []
        block = self.blocks[0]
        transform = eval_transform(self.record, block.crop_size, block.mean, block.std)
        return DataLoader(
            EvalDataset(self.val_source, transform),
            batch_size=self.batch_size,
            num_workers=self.cfg.num_workers,
            persistent_workers=self.cfg.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a raw batch on the device it is on now; other batches pass through."""
        if not isinstance(batch, RawBatch):
            return batch
        assert isinstance(self._loader, RawLoader)
        return self._loader.finish(batch)

    def _build(self, rank: int, world_size: int, *, raw: bool = False) -> Loader:
        sampler = build_sampler(
            self.cfg.sampler, self.targets, seed=self.seed, rank=rank, world_size=world_size
        )
        return build_loader(
            self.source,
            self.split.indices,
            sampler,
            self.blocks,
            engine=self.cfg.engine,
            batch_size=self.batch_size,
            num_workers=self.cfg.num_workers,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            on_corrupt=self.cfg.on_corrupt,
            raw=raw,
        )
