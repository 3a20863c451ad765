# SPDX-License-Identifier: MIT
"""Lightning's Trainer as every stage uses it: our loggers, seeds and watch over the ranks."""

from collections.abc import Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ltplugins.config.run import RunConfig
from ltplugins.config.trainer import trainer_arguments
from ltplugins.core.errors import UserError
from ltplugins.training.faults.ranks import EndTogether, set_timeout, watch_ranks
from ltplugins.training.files import SealedFiles
from ltplugins.training.private import require_private
from ltplugins.training.progress import RunProgress
from ltplugins.training.seeds import EpochSeed


def build_trainer(
    cfg: RunConfig,
    progress: RunProgress,
    loggers: Sequence[Logger],
    callbacks: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """The Trainer of a stage: Lightning's arguments from the config, our loggers and seeds.

    Args:
        loggers: metrics.csv first.
        callbacks: beside the seeds and the watch over the ranks.

    Raises:
        UserError: Lightning does not take its arguments, or is a version that is not known.
    """
    kwargs = trainer_arguments(cfg)
    kwargs.pop("max_time", None)  # a callback of ours
    callbacks = [EndTogether(), EpochSeed(cfg.seed), LearningRateMonitor("epoch"), *callbacks]
    has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if kwargs.get("enable_progress_bar", True) and not has_bar:  # or Lightning would show its own
        callbacks.append(progress)
    # Our samplers shard themselves; our own callback saves, beside those of a user.
    saves = any(isinstance(callback, Checkpoint) for callback in callbacks)
    fixed = {"use_distributed_sampler": False, "enable_checkpointing": saves, "logger": loggers}
    defaults = {"num_sanity_val_steps": 0, "enable_model_summary": False}
    try:
        trainer = pl.Trainer(**{**defaults, **kwargs, **fixed, "callbacks": callbacks})
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"Lightning's Trainer does not take its arguments: {error}") from error
    require_private(trainer)
    trainer.strategy.checkpoint_io = SealedFiles()
    watch_ranks(trainer)
    set_timeout(trainer, cfg.rank_timeout)
    return trainer
