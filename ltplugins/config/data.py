# SPDX-License-Identifier: MIT
"""From a run's config to its data."""

from ltplugins.config.run import RunConfig
from ltplugins.data.training_set import TrainingSet


def training_set(run: RunConfig) -> TrainingSet:
    """What a run trains on.

    Raises:
        UserError: whatever does not fit in ``data``, ``augmentations``, ``dali`` or the batch size.
    """
    return TrainingSet(run.data, run.augmentations, run.optimizer.batch_size, dali=run.dali)
