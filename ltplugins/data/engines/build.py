# SPDX-License-Identifier: MIT
"""Engines turn positions into views: ``workers`` image by image, ``batched`` a batch at a time,
``dali`` in NVIDIA's library.

All give solo-learn's batch ``[indexes (B,), [views V x (B,3,S,S)], targets (B,)]`` with the same
indexes in the same order, and all can be resumed inside an epoch.

Legend: B batch of one rank, V views, S crop size.
"""

from collections.abc import Callable

import torch

from ltplugins.core.errors import unknown
from ltplugins.data.engines.batched import build_batched
from ltplugins.data.engines.dali.loader import build_dali
from ltplugins.data.engines.loader import Loader
from ltplugins.data.engines.workers import build_workers
from ltplugins.data.samplers.base import Shard
from ltplugins.data.training_set import TrainingSet

ENGINES: dict[str, Callable[[TrainingSet, Shard, torch.device], Loader]] = {
    "batched": build_batched,
    "dali": build_dali,
    "workers": build_workers,
}


def build_loader(training: TrainingSet, shard: Shard, device: torch.device) -> Loader:
    """Build the training loader of one process, by the engine that the training set names.

    Args:
        training: the images, their sampler and their views.
        shard: the process, and the run's seed.
        device: where the training is; an engine that can works there, too.

    Raises:
        UserError: an unknown engine, or fewer images on a rank than the batch.
    """
    engine = training.cfg.engine
    if engine not in ENGINES:
        raise unknown("data.engine", engine, ENGINES)
    return ENGINES[engine](training, shard, device)
