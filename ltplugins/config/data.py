# SPDX-License-Identifier: MIT
"""From a run's config to its data."""

from ltplugins.config.run import RunConfig
from ltplugins.data.datamodule import LTDataModule
from ltplugins.data.sources.build import build_source, has_test_part
from ltplugins.data.training_set import TrainingSet


def training_set(run: RunConfig) -> TrainingSet:
    """What a run trains on.

    Raises:
        UserError: whatever does not fit in ``data``, ``augmentations``, ``dali`` or the batch size.
    """
    return TrainingSet(run.data, run.augmentations, run.optimizer.batch_size, dali=run.dali)


def data_module(run: RunConfig) -> LTDataModule:
    """What a run trains on and is validated on, for a Trainer.

    Raises:
        UserError: as :func:`training_set`; test images that are absent or damaged.
    """
    training = training_set(run)
    val_source = build_source(run.data, "test") if has_test_part(run.data) else None
    return LTDataModule(training, run.seed, val_source)
