# SPDX-License-Identifier: MIT
"""The training images of a run: source, long-tailed split, sampler, views, OOD pool, strengths.

Legend: N training images, M images of the OOD pool, B batch of one rank, C classes.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from ltplugins.core.errors import UserError
from ltplugins.data.augment.plain import stream_images
from ltplugins.data.augment.schema import AugmentationBlock, refuse_grey_blocks
from ltplugins.data.augment.strength import Boost, StrengthTable
from ltplugins.data.engines.dali.check import check_dali
from ltplugins.data.imbalance import Split, make_split
from ltplugins.data.samplers.base import EpochSampler, Shard, count_batches, require_batch
from ltplugins.data.samplers.build import build_sampler
from ltplugins.data.samplers.shuffle import IdPlusOodSampler
from ltplugins.data.schema import DaliConfig, DataConfig
from ltplugins.data.sources.base import Source
from ltplugins.data.sources.build import build_ood_source, build_source
from ltplugins.data.sources.joined import JoinedSource
from ltplugins.data.sources.records import DataRecord


class TrainingSet:
    """What a run trains on; whatever does not fit together is refused when it is made.

    Attributes:
        source: all images of the training part.
        split: the long-tailed subset of it; an image's index is its place in ``split.indices``.
        targets: Int[N] of the subset.
        ood_source: the pool of ``data.ood``, or None.
        ood_subset: Int[K], positions in the pool that an epoch draws beside the N images.
        images: the source, with the pool behind it where there is one.
        indices: Int[N + M], where in ``images`` the image of an index is.
        strengths: of the images, where a method boosts their views.

    Args:
        cfg: the ``data`` block.
        blocks: the ``augmentations`` list.
        batch_size: B.
        source: other images than those that ``cfg`` names, such as arrays from code.
        split: another subset than the one of ``cfg.imbalance``.
        ood_source: another pool than the one of ``cfg.ood``.
        dali: the ``dali`` block.
        drop_last: other than ``cfg`` says: drop the last, short batch; without it the ranks' last
            batches may differ in size by one image.

    Raises:
        UserError: whatever does not fit, before any image is decoded.
    """

    def __init__(
        self,
        cfg: DataConfig,
        blocks: Sequence[AugmentationBlock],
        batch_size: int,
        *,
        source: Source | None = None,
        split: Split | None = None,
        ood_source: Source | None = None,
        dali: DaliConfig | None = None,
        drop_last: bool | None = None,
    ) -> None:
        self.cfg, self.blocks, self.batch_size = cfg, list(blocks), batch_size
        self.dali = dali or DaliConfig()
        self.drop_last = cfg.drop_last if drop_last is None else drop_last
        self.source = source or build_source(cfg, "train")
        self.ood_source = ood_source or build_ood_source(cfg)
        self.split = split or make_split(self.source.targets, self.num_classes, cfg.imbalance)
        self.targets: np.ndarray = self.source.targets[self.split.indices]
        self.ood_subset: np.ndarray = np.empty(0, dtype=np.int64)
        self.images, self.indices = self.source, self.split.indices
        if self.ood_source is not None:
            # Seen as in training: with the training source's statistics.
            self.images = JoinedSource(self.source, self.ood_source)
            pool = len(self.source) + np.arange(self.num_ood)
            self.indices = np.concatenate([self.split.indices, pool])
        self.strengths: StrengthTable | None = None
        if not self.record.grey:
            refuse_grey_blocks(self.blocks)
        if cfg.engine == "dali":
            check_dali(self.blocks)
        sampler = build_sampler(cfg.sampler, self.targets, Shard())
        require_batch(sampler, batch_size, self.drop_last)

    @property
    def num_samples(self) -> int:
        """N, images of the subset."""
        return len(self.split.indices)

    @property
    def num_ood(self) -> int:
        """M, images of the OOD pool; their indexes are N to N + M - 1."""
        return len(self.ood_source) if self.ood_source is not None else 0

    @property
    def num_classes(self) -> int:
        """C, classes of the source."""
        return self.source.num_classes

    @property
    def class_counts(self) -> np.ndarray:
        """Int[C], images of each class in the subset."""
        return self.split.class_counts

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names, by class id."""
        return self.source.class_names

    @cached_property
    def test_source(self) -> Source | None:
        """Test images, or None where the config names none.

        Raises:
            UserError: they are absent or damaged.
        """
        return build_source(self.cfg, "test") if self.cfg.has_test_part else None

    @cached_property
    def probe_source(self) -> Source | None:
        """Images of ``data.probe_path``, on which probes and kNN are fitted; None without one.

        Raises:
            UserError: they are absent or damaged.
        """
        if self.cfg.probe_path is None:
            return None
        return build_source(self.cfg, "probe", None if self.cfg.no_labels else self.class_names)

    @property
    def record(self) -> DataRecord:
        """Statistics and native size of the source."""
        return self.source.record

    @property
    def boost(self) -> Boost | None:
        """What a strength does, where a method boosts the views."""
        return None if self.strengths is None else self.strengths.boost

    def sampler(self, shard: Shard) -> EpochSampler:
        """Build the sampler of one process; it draws the OOD subset of now."""
        sampler = build_sampler(self.cfg.sampler, self.targets, shard)
        if isinstance(sampler, IdPlusOodSampler):
            sampler.set_ood(self.ood_subset)
        return sampler

    def batches_per_epoch(self, num_ood: int, world_size: int = 1) -> int:
        """Count the batches of one rank in an epoch that draws ``num_ood`` images of the pool."""
        total = self.num_samples + num_ood
        return count_batches(total, world_size, self.batch_size, self.drop_last)

    def set_ood(self, positions: np.ndarray | Sequence[int]) -> None:
        """Replace the OOD subset; a sampler that is made from now on draws it.

        Args:
            positions: Int[K] in the pool, unique.
        """
        subset = np.asarray(positions, dtype=np.int64)
        assert len(np.unique(subset)) == len(subset), "an OOD image was chosen twice"
        assert not len(subset) or 0 <= subset.min() <= subset.max() < self.num_ood
        self.ood_subset = subset

    def boost_views(self, boost: Boost) -> None:
        """Let RandAugment follow a strength per training image in loaders made from now on.

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
        self.strengths = StrengthTable(boost, self.num_samples, self.num_ood)

    def set_strength(self, strengths: Tensor) -> None:
        """Replace the strengths of the training images; views have them from the next epoch on.

        Args:
            strengths: Float[N] in [0, 1], by true index.
        """
        assert self.strengths is not None, "boost_views comes first"
        self.strengths.set(strengths)

    def stream(self, part: str, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give images start to stop - 1 under the deterministic transform; see ``stream_images``.

        Args:
            part: ``id`` for the training subset, ``ood`` for the pool.
        """
        first = {"id": 0, "ood": self.num_samples}[part]
        end = self.num_samples if part == "id" else len(self.indices)
        yield from stream_images(
            self.images if part == "ood" else self.source,
            self.indices[first:end][start:stop],
            self.blocks[0],
            batch_size=self.batch_size,
            num_workers=self.cfg.num_workers,
            on_corrupt=self.cfg.on_corrupt,
        )
