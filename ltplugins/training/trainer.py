# SPDX-License-Identifier: MIT
"""Lightning's Trainer as every stage uses it: our loggers, seeds and watch over the ranks."""

import logging
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ltplugins.config.run import RunConfig
from ltplugins.config.trainer import trainer_arguments
from ltplugins.core.errors import UserError
from ltplugins.runs.metrics import MetricsLogger
from ltplugins.training.faults.ranks import EndTogether, set_timeout, watch_ranks
from ltplugins.training.progress import RunProgress
from ltplugins.training.seeds import EpochSeed
from ltplugins.training.stopping import note_sigterm

log = logging.getLogger(__name__)


def build_trainer(
    cfg: RunConfig,
    progress: RunProgress,
    logger: MetricsLogger,
    callbacks: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """The Trainer of a stage: Lightning's arguments from the config, our loggers and seeds.

    Args:
        callbacks: of every training, beside the seeds and the watch over the ranks.

    Raises:
        UserError: Lightning does not take its arguments.
    """
    loggers = [logger, *_wandb_logger(cfg)]
    kwargs = trainer_arguments(cfg)
    kwargs.pop("max_time", None)  # a callback of ours
    callbacks = [EndTogether(), EpochSeed(cfg.seed), LearningRateMonitor("epoch"), *callbacks]
    if kwargs.get("enable_progress_bar", True):  # without ours Lightning would show its own
        callbacks.append(progress)
    # Our samplers shard themselves; our own callback saves.
    fixed = {"use_distributed_sampler": False, "enable_checkpointing": False, "logger": loggers}
    defaults = {"num_sanity_val_steps": 0, "enable_model_summary": False}
    try:
        trainer = pl.Trainer(**{**defaults, **kwargs, **fixed, "callbacks": callbacks})
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"Lightning's Trainer does not take its arguments: {error}") from error
    watch_ranks(trainer)
    note_sigterm(trainer)
    set_timeout(trainer, cfg.rank_timeout)
    return trainer


def _wandb_logger(cfg: RunConfig) -> list[Any]:
    """Weights & Biases, if it is asked for and installed; metrics.csv is written in any case."""
    if not cfg.wandb.enabled:
        return []
    try:
        import wandb  # noqa: F401
        from lightning.pytorch.loggers import WandbLogger
    except ImportError:
        log.warning("wandb.enabled is true and wandb is not installed: metrics.csv only.")
        return []
    project, entity, offline = cfg.wandb.project, cfg.wandb.entity, cfg.wandb.offline
    return [WandbLogger(name=cfg.name, project=project, entity=entity, offline=offline)]
