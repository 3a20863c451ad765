# SPDX-License-Identifier: MIT
"""The data of a run, from its config: sources, split, loaders, and the views of raw batches."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.data.augment.plain import EvalDataset, eval_transform, stream_images
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.augment.strength import Boost, StrengthTable
from ltplugins.data.engines.batched import RawLoader
from ltplugins.data.engines.build import build_loader
from ltplugins.data.engines.draws import RawBatch
from ltplugins.data.engines.loader import Loader
from ltplugins.data.imbalance import make_split
from ltplugins.data.samplers.build import build_sampler
from ltplugins.data.samplers.shuffle import IdPlusOodSampler
from ltplugins.data.schema import DaliConfig, DataConfig, parse_data_config
from ltplugins.data.sources.base import Source
from ltplugins.data.sources.build import build_source, has_test_part
from ltplugins.data.sources.joined import JoinedSource, build_ood_source

log = logging.getLogger(__name__)


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
        ood_source: the pool of ``data.ood``, M images, or None.
        ood_subset: Int[K], positions in the pool that an epoch draws beside the N images.

    Args:
        cfg: solo-learn's config with ``data``, ``augmentations``, ``optimizer.batch_size`` and
            ``seed``; also ``data.imbalance``, ``data.engine``, ``data.sampler``, ``data.ood``,
            and ``dali``.

    Raises:
        UserError: whatever does not fit, before any work starts.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.cfg = parse_data_config(cfg["data"])
        self.dali = parse(DaliConfig, cfg.get("dali"), "dali")
        self.blocks = parse_augmentations(cfg["augmentations"])
        self.batch_size = int(cfg["optimizer"]["batch_size"])
        self.seed = int(cfg.get("seed", 5))  # solo-learn's default
        self.source = build_source(self.cfg, "train")
        self.split = make_split(self.source.targets, self.source.num_classes, self.cfg.imbalance)
        self.val_source = build_source(self.cfg, "test") if has_test_part(self.cfg) else None
        self.targets: np.ndarray = self.source.targets[self.split.indices]
        self.ood_source = _ood_source(self.cfg)
        self.ood_subset: np.ndarray = np.empty(0, dtype=np.int64)
        self._loader: Loader | None = None
        self._loader_of: Any = None
        self._loader_state: dict[str, int] | None = None
        self._strengths: StrengthTable | None = None
        # Built once here so that a wrong sampler, engine or batch size is said now.
        self._build(rank=0, world_size=1)

    @property
    def num_samples(self) -> int:
        return len(self.split.indices)

    @property
    def num_ood(self) -> int:
        """M, images of the OOD pool; their indexes are N to N + M - 1."""
        return len(self.ood_source) if self.ood_source is not None else 0

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
        elif self.num_ood and self._loader is not None and self._loader_of is trainer:
            return self._loader  # asked again because its length has changed; its workers live on
        else:
            self._loader_of = trainer
            device = trainer.strategy.root_device
            self._loader = self._build(
                trainer.global_rank,
                trainer.world_size,
                raw=device.type != "cpu",
                dali_device=self._dali_device(device),
            )
        if self._loader_state is not None:
            self._loader.load_state_dict(self._loader_state)
            self._loader_state = None
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

    def set_ood(self, positions: Any) -> None:
        """Replace the OOD subset; it is drawn from the next epoch on.

        Args:
            positions: Int[K] in the pool, unique.
        """
        subset = np.asarray(positions, dtype=np.int64)
        assert len(np.unique(subset)) == len(subset), "an OOD image was chosen twice"
        assert not len(subset) or 0 <= subset.min() <= subset.max() < self.num_ood
        self.ood_subset = subset
        if self._loader is not None:
            assert isinstance(self._loader.sampler, IdPlusOodSampler)
            self._loader.sampler.set_ood(subset)

    def boost_views(self, boost: Boost) -> None:
        """Let RandAugment follow a strength per training image; call it before the loader is asked.

        All strengths are 0, nothing is applied, until :meth:`set_strength` says otherwise.

        Raises:
            UserError: an engine that cannot, or RandAugment of the YAML's own.
        """
        if self.cfg.engine not in ("workers", "batched"):
            raise UserError(
                f"data.engine {self.cfg.engine} cannot augment each image by a strength of its "
                f"own. Set data.engine to batched or workers."
            )
        for i, block in enumerate(self.blocks):
            if block.randaugment.prob > 0:
                raise UserError(
                    f"augmentations[{i}].randaugment.prob is {block.randaugment.prob:g}, and the "
                    f"method sets RandAugment per image. Remove the block."
                )
        self._strengths = StrengthTable(boost, self.num_samples, self.num_ood)
        self._loader = None

    def set_strength(self, strengths: Tensor) -> None:
        """Replace the strengths of the training images; views have them from the next epoch on.

        Args:
            strengths: Float[N] in [0, 1], by true index.
        """
        assert self._strengths is not None, "boost_views comes first"
        self._strengths.set(strengths)

    def batches_per_epoch(self, num_ood: int, world_size: int = 1) -> int:
        """Batches of one rank in an epoch that draws ``num_ood`` images of the pool."""
        return (self.num_samples + num_ood) // world_size // self.batch_size

    def stream(self, part: str, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images start to stop - 1 under the deterministic transform; see ``stream_images``.

        Args:
            part: ``id`` for the training subset, ``ood`` for the pool.
        """
        source, indices = self.source, self.split.indices
        if part == "ood":
            assert self.ood_source is not None
            # Seen as in training: with the training source's statistics.
            source = JoinedSource(self.source, self.ood_source)
            indices = len(self.source) + np.arange(self.num_ood)
        yield from stream_images(
            source,
            indices[start:stop],
            self.blocks[0],
            batch_size=self.batch_size,
            num_workers=self.cfg.num_workers,
            on_corrupt=self.cfg.on_corrupt,
        )

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch, and the OOD subset where there is a pool."""
        state: dict[str, Any] = (
            {} if self._loader is None else {"loader": self._loader.state_dict()}
        )
        if self.num_ood:
            state["ood_subset"] = torch.from_numpy(self.ood_subset)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the checkpoint's subset, at its place.

        Lightning keeps the place too, but hands it over only to a loader that is made later; a
        schedule that counts the steps has had it made by then.
        """
        self._loader_state = state_dict.get("loader")
        if "ood_subset" in state_dict:
            self.set_ood(state_dict["ood_subset"].numpy())

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a raw batch on the device it is on now; other batches pass through."""
        if not isinstance(batch, RawBatch):
            return batch
        assert isinstance(self._loader, RawLoader)
        return self._loader.finish(batch)

    def _build(
        self,
        rank: int,
        world_size: int,
        *,
        raw: bool = False,
        dali_device: torch.device | None = None,
    ) -> Loader:
        sampler = build_sampler(
            self.cfg.sampler, self.targets, seed=self.seed, rank=rank, world_size=world_size
        )
        source, indices = self.source, self.split.indices
        if self.ood_source is not None:
            assert isinstance(sampler, IdPlusOodSampler)
            sampler.set_ood(self.ood_subset)
            source = JoinedSource(self.source, self.ood_source)
            indices = np.concatenate([indices, len(self.source) + np.arange(self.num_ood)])
        return build_loader(
            source,
            indices,
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
            strengths=self._strengths,
            dali_device=dali_device,
        )

    def _dali_device(self, device: torch.device) -> torch.device:
        """``dali.device``, or the CPU where the training itself is on one."""
        if self.dali.device == "cpu":
            return torch.device("cpu")
        if device.type == "cpu" and self.cfg.engine == "dali":
            log.warning("dali.device=gpu, and training is on the CPU: DALI works there too.")
        return device


def _ood_source(cfg: DataConfig) -> Source | None:
    """The pool of ``data.ood``; the block and the sampler that draws from it come together."""
    name = cfg.sampler if isinstance(cfg.sampler, str) else cfg.sampler.get("name")
    if cfg.ood is None and name == "id_plus_ood":
        raise UserError(
            "data.sampler: id_plus_ood draws from a pool of OOD images and data.ood names none. "
            "Set data.ood, such as {dataset: emoji_pack}, or data.sampler: shuffle."
        )
    if cfg.ood is None:
        return None
    if name != "id_plus_ood":
        raise UserError(
            f"data.ood is given and data.sampler is {name}, which never draws from it. "
            f"Set data.sampler: id_plus_ood, or data.ood: null."
        )
    return build_ood_source(cfg.ood)
