# SPDX-License-Identifier: MIT
"""Engines turn positions into views: ``workers`` image by image, ``batched`` a batch at a time,
``dali`` in NVIDIA's library.

All give solo-learn's batch ``[indexes (B,), [views V x (B,3,S,S)], targets (B,)]`` with the same
indexes in the same order, and both can be resumed inside an epoch.

Legend: N training images, B batch of one rank, V views, S crop size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ltplugins.core.errors import unknown
from ltplugins.data.augment.batch.views import BatchedViews
from ltplugins.data.augment.pil import ViewTransform
from ltplugins.data.augment.schema import AugmentationBlock, parse_augmentations
from ltplugins.data.augment.strength import StrengthTable
from ltplugins.data.engines.batched import BatchedLoader, RawLoader
from ltplugins.data.engines.dali.check import check_dali
from ltplugins.data.engines.dali.feed import DaliDataset
from ltplugins.data.engines.dali.loader import DaliLoader
from ltplugins.data.engines.draws import BatchDataset, ViewDataset
from ltplugins.data.engines.loader import Loader
from ltplugins.data.engines.workers import WorkersLoader
from ltplugins.data.samplers.base import EpochSampler
from ltplugins.data.sources.base import Source

ENGINES = ("batched", "dali", "workers")


def build_loader(
    source: Source,
    split_indices: np.ndarray,
    sampler: EpochSampler,
    blocks: Sequence[AugmentationBlock | Any],
    *,
    engine: str = "workers",
    batch_size: int,
    num_workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = True,
    on_corrupt: str = "fail",
    raw: bool = False,
    strengths: StrengthTable | None = None,
    dali_device: torch.device | None = None,
) -> Loader:
    """Build the training loader of one rank.

    Args:
        source: of all images.
        split_indices: Int[N], the training subset; true indexes are positions in it.
        sampler: over the subset, of the same rank and world size.
        blocks: the ``augmentations`` list.
        engine: ``workers``, ``batched`` or ``dali``.
        batch_size: B, of one rank.
        num_workers: decoding processes, or DALI's threads; 0 = in this process, or one thread.
        seed: of the run.
        rank, world_size: of this process.
        drop_last: drop the last, short batch; without it the ranks' last batches may differ.
        on_corrupt: ``fail`` or ``skip``.
        raw: ``batched`` only: yield :class:`RawBatch`, to be finished on the training device;
            without it the whole-batch augmentation runs on the CPU, in the worker processes.
        strengths: of the images, where a method boosts their views.
        dali_device: ``dali`` only: where it works; None = CPU.

    Raises:
        UserError: an unknown engine, fewer images than the batch, a bad augmentation, DALI asked
            for and not installed.
    """
    if engine not in ENGINES:
        raise unknown("data.engine", engine, ENGINES)
    if (sampler.rank, sampler.world_size) != (rank, world_size):
        raise ValueError(
            f"sampler is for rank {sampler.rank} of {sampler.world_size}, "
            f"the loader for rank {rank} of {world_size}"
        )
    blocks = parse_augmentations(blocks)
    common: dict[str, Any] = {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "num_workers": num_workers,
    }
    seeds: dict[str, Any] = {"seed": seed, "on_corrupt": on_corrupt, "strengths": strengths}
    boost = None if strengths is None else strengths.boost
    if engine == "dali":
        check_dali(blocks)
        return DaliLoader(
            DaliDataset(source, split_indices, **seeds),
            sampler,
            batch_size=batch_size,
            drop_last=drop_last,
            blocks=blocks,
            num_threads=max(1, num_workers),
            device=dali_device,
        )
    if engine == "workers":
        transform = ViewTransform(blocks, source.record, boost=boost)
        return WorkersLoader(
            ViewDataset(source, split_indices, transform, **seeds), sampler, **common
        )
    crops = ViewTransform(blocks, source.record, crop_only=True)
    views = BatchedViews(blocks, source.record, boost)
    dataset = BatchDataset(source, split_indices, crops, views=None if raw else views, **seeds)
    if raw:
        return RawLoader(dataset, sampler, views=views, **common)
    return BatchedLoader(dataset, sampler, views=views, **common)
