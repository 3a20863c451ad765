# SPDX-License-Identifier: MIT
"""A training set under Lightning: loaders of each process, a place to resume at, raw batches.

Legend: N training images, M images of the OOD pool, B batch of one rank, C classes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from ltplugins.data.augment.plain import EvalDataset, eval_transform
from ltplugins.data.augment.strength import Boost
from ltplugins.data.engines.batched import RawLoader
from ltplugins.data.engines.build import build_loader
from ltplugins.data.engines.draws import RawBatch
from ltplugins.data.engines.loader import Loader
from ltplugins.data.patience import PatientLoader
from ltplugins.data.samplers.base import Shard
from ltplugins.data.samplers.shuffle import IdPlusOodSampler
from ltplugins.data.sources.base import Source
from ltplugins.data.training_set import TrainingSet


class LTDataModule(LightningDataModule):
    """The data of a Trainer; what a method may ask of it passes on to the training set.

    Args:
        training: what is trained on.
        seed: of the run.
        val_source: test images for the validation loop; None = no validation.
    """

    def __init__(self, training: TrainingSet, seed: int, val_source: Source | None = None) -> None:
        super().__init__()
        self.training, self.seed, self.val_source = training, seed, val_source
        self._loader: Loader | None = None
        self._loader_of: Any = None
        self._loader_state: dict[str, int] | None = None
        self._ood_sizes: np.ndarray | None = None

    def train_dataloader(self) -> Loader:
        """Make the loader of this rank.

        With the engine ``batched`` and an accelerator it yields raw batches, which
        :meth:`on_after_batch_transfer` augments there; on a CPU the worker processes augment.
        """
        trainer = self.trainer
        if trainer is None:
            shard, device = Shard(seed=self.seed), torch.device("cpu")
        elif self.num_ood and self._loader is not None and self._loader_of is trainer:
            return self._loader  # asked again because its length has changed; its workers live on
        else:
            self._loader_of = trainer
            shard = Shard(trainer.global_rank, trainer.world_size, self.seed)
            device = trainer.strategy.root_device
        self._loader = build_loader(self.training, shard, device)
        if self._loader_state is not None:
            self._loader.load_state_dict(self._loader_state)
            self._loader_state = None
        return self._loader

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Give batches ``[X, targets]``, or an empty list where there is no test part."""
        if self.val_source is None:
            return []
        training, block = self.training, self.training.blocks[0]
        transform = eval_transform(training.record, block.crop_size, block.mean, block.std)
        num_workers = training.cfg.num_workers
        return PatientLoader(
            EvalDataset(self.val_source, transform),
            batch_size=training.batch_size,
            num_workers=num_workers,
            seconds=training.cfg.worker_timeout,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a raw batch on the device it is on now; other batches pass through."""
        if not isinstance(batch, RawBatch):
            return batch
        assert isinstance(self._loader, RawLoader)
        return self._loader.finish(batch)

    def state_dict(self) -> dict[str, Any]:
        """Give the place in the epoch, and the OOD subset where there is a pool."""
        state: dict[str, Any] = (
            {} if self._loader is None else {"loader": self._loader.state_dict()}
        )
        if self.num_ood:
            state["ood_subset"] = torch.from_numpy(self.ood_subset)
        if self._ood_sizes is not None:
            state["ood_sizes"] = torch.from_numpy(self._ood_sizes)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the checkpoint's subset, at its place.

        Lightning keeps the place too, but hands it over only to a loader that is made later; a
        schedule that counts the steps has had it made by then.
        """
        self._loader_state = state_dict.get("loader")
        if "ood_subset" in state_dict:
            sizes = state_dict.get("ood_sizes")
            self.set_ood(state_dict["ood_subset"].numpy(), None if sizes is None else sizes.numpy())

    @property
    def num_samples(self) -> int:
        """N, images of the training subset."""
        return self.training.num_samples

    @property
    def class_counts(self) -> np.ndarray:
        """Int[C], images of each class in the training subset."""
        return self.training.class_counts

    @property
    def num_ood(self) -> int:
        """M, images of the OOD pool."""
        return self.training.num_ood

    @property
    def ood_subset(self) -> np.ndarray:
        """Int[K], positions in the pool that an epoch draws."""
        return self.training.ood_subset

    def batches_per_epoch(self, num_ood: int, world_size: int = 1) -> int:
        """Count the batches of one rank in an epoch that draws ``num_ood`` images of the pool."""
        return self.training.batches_per_epoch(num_ood, world_size)

    def stream(self, part: str, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give images under the deterministic transform; see :meth:`TrainingSet.stream`."""
        return self.training.stream(part, start, stop)

    def set_ood(
        self, positions: np.ndarray | Sequence[int], sizes: np.ndarray | None = None
    ) -> None:
        """Replace the OOD subset; it is drawn from the next epoch on.

        Args:
            positions: Int[K] in the pool, unique.
            sizes: of the clusters that they were chosen for, one after the other; for pictures.
        """
        self.training.set_ood(positions)
        self._ood_sizes = sizes
        if self._loader is not None:
            assert isinstance(self._loader.sampler, IdPlusOodSampler)
            self._loader.sampler.set_ood(self.ood_subset)

    def boost_views(self, boost: Boost) -> None:
        """Let RandAugment follow a strength per image; see :meth:`TrainingSet.boost_views`."""
        self.training.boost_views(boost)
        self._loader = None  # it was made without strengths

    def set_strength(self, strengths: Tensor) -> None:
        """Replace the strengths, Float[N]; see :meth:`TrainingSet.set_strength`."""
        self.training.set_strength(strengths)


def build_datamodule(training: TrainingSet, seed: int) -> LTDataModule:
    """Put a training set under Lightning, validated on the test images that its config names.

    A training without labels is not validated: its classifier knows none of the classes.

    Raises:
        UserError: test images that are absent or damaged.
    """
    is_labelled = bool((training.targets >= 0).any())
    return LTDataModule(training, seed, training.test_source if is_labelled else None)
