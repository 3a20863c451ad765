# SPDX-License-Identifier: MIT
"""Pretraining: a composed config in, a run folder with checkpoints and metrics out."""

import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

import ltplugins
from ltplugins.config.identity import identity
from ltplugins.config.resolve import check_method, resolve
from ltplugins.config.trainer import trainer_arguments
from ltplugins.core.errors import UserError
from ltplugins.data.datamodule import LTDataModule
from ltplugins.data.sources.base import content_hash
from ltplugins.host.build import build_model
from ltplugins.runs.folder import RunFolder
from ltplugins.runs.metrics import MetricsLogger
from ltplugins.stages.blocks import config_blocks
from ltplugins.stages.launch import launch
from ltplugins.stages.sweep import is_multirun
from ltplugins.training.checkpoint import RunCheckpoint, continue_metrics
from ltplugins.training.faults.ranks import EndTogether, set_timeout, watch_parent, watch_ranks
from ltplugins.training.progress import RunProgress
from ltplugins.training.seeds import EpochSeed

log = logging.getLogger(__name__)


def pretrain(cfg: DictConfig) -> Path:
    """Train the config's method and return the run's folder.

    The same config again continues an interrupted run, and leaves a finished one as it is.

    Raises:
        UserError: anything wrong with the config, the data or the folder, before training starts.
    """
    from ltplugins.host import HOST, METHODS

    if HOST.name == "solo":
        from ltplugins.host.solo import apply_fixes

        apply_fixes()
    watch_parent()
    ltplugins.register()
    cfg = resolve(cfg, config_blocks)
    check_method(cfg, METHODS)
    pl.seed_everything(cfg.seed, workers=False, verbose=False)
    data = LTDataModule(cfg)
    cfg.data.num_samples, cfg.data.num_classes = data.num_samples, data.num_classes
    run = RunFolder(cfg.output_dir)
    progress = RunProgress(str(cfg.method), cfg.optimizer.batch_size)
    logger = MetricsLogger(run.metrics)
    trainer = build_trainer(cfg, progress, logger)
    model = build_model(cfg, trainer.world_size, data.record.small_stem)

    facts = {"host": HOST.label, "split": describe_split(data), "method": cfg.method}
    what = identity(cfg, trainer.world_size)
    what |= {"split_hash": data.split.hash, "data_hash": content_hash(data.source)}
    if data.ood_source is not None:
        what["ood_hash"] = content_hash(data.ood_source)
    is_first = getattr(rank_zero_only, "rank", 0) == 0
    # A rank that another launcher has started decides as the first one does, or it would wait.
    is_finished = run.open(cfg, what, facts) if is_first else run.look(what)
    if is_finished:
        log.info("%s is complete: nothing to train.", run.path)
        run.close()
        return run.path
    if is_first:
        _show_start(cfg, data, model, HOST.describe())
    checkpoint = checkpoint_to_resume(cfg, run, logger)
    meta = {**facts, "config": OmegaConf.to_container(cfg, resolve=True), "identity": what}
    trainer.callbacks.append(  # type: ignore[attr-defined]
        RunCheckpoint(run.checkpoints, meta, cfg.checkpoint.frequency, cfg.checkpoint.keep_prev)
    )
    started = time.perf_counter()
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    if trainer.is_global_zero and not trainer.interrupted:
        run.update(
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - started, 1),
            images_per_second=round(progress.images_per_second, 1),
        )
    run.close()
    return run.path


def describe_split(data: LTDataModule) -> dict[str, Any]:
    """What a number needs to say about its training images."""
    return {
        "description": data.split.description,
        "hash": data.split.hash,
        "num_samples": data.num_samples,
        "class_counts": [int(n) for n in data.class_counts],
        "class_names": [str(n) for n in data.class_names],
    }


def build_trainer(cfg: DictConfig, progress: RunProgress, logger: MetricsLogger) -> pl.Trainer:
    """The Trainer of a stage: Lightning's arguments from the config, our loggers and seeds."""
    kwargs = trainer_arguments(cfg)
    loggers: list[Any] = [logger]
    if OmegaConf.select(cfg, "wandb.enabled"):
        loggers += _wandb_logger(cfg)
    callbacks = [EndTogether(), EpochSeed(cfg.seed), LearningRateMonitor("epoch")]
    if kwargs.pop("enable_progress_bar", True):
        callbacks.append(progress)
    # Our samplers shard themselves; our own callback saves.
    fixed = {"use_distributed_sampler": False, "enable_checkpointing": False, "logger": loggers}
    defaults = {"num_sanity_val_steps": 0, "enable_model_summary": False}
    try:
        trainer = pl.Trainer(**{**defaults, **kwargs, **fixed, "callbacks": callbacks})
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"Lightning's Trainer does not take its arguments: {error}") from error
    watch_ranks(trainer)
    set_timeout(trainer, OmegaConf.select(cfg, "rank_timeout"))
    return trainer


def _wandb_logger(cfg: DictConfig) -> list[Any]:
    """Weights & Biases, if its package is installed; metrics.csv is written in any case."""
    try:
        import wandb  # noqa: F401
        from lightning.pytorch.loggers import WandbLogger
    except ImportError:
        log.warning("wandb.enabled is true and wandb is not installed: metrics.csv only.")
        return []
    options = cfg.wandb
    return [
        WandbLogger(
            name=cfg.name, project=options.project, entity=options.entity, offline=options.offline
        )
    ]


def checkpoint_to_resume(cfg: DictConfig, run: RunFolder, logger: MetricsLogger) -> str | None:
    """Where to go on from: the config's file or the folder's last checkpoint, None to start.

    Raises:
        UserError: the file does not exist, or resuming is turned off and the folder has one.
    """
    given = OmegaConf.select(cfg, "resume_from_checkpoint")
    if given is not None:
        if not Path(given).exists():
            raise UserError(f"resume_from_checkpoint: {given} does not exist.")
        return str(given)
    last = run.last_checkpoint
    if last is None:
        return None
    if not cfg.auto_resume.enabled:
        raise UserError(
            f"{run.path} holds an interrupted run and auto_resume.enabled is false. Enable it to "
            f"go on, or set output_dir to a new folder."
        )
    continue_metrics(logger, last)
    log.info("going on from %s", last)
    return str(last)


def _show_start(cfg: DictConfig, data: LTDataModule, model: Any, host: str) -> None:
    params = sum(p.numel() for p in model.backbone.parameters()) / 1e6
    counts = sorted((int(n) for n in data.class_counts), reverse=True)
    log.info("%s; %s", cfg.method, host)
    log.info(
        "%s: %d images, %d classes of %d to %d images, split %s",
        cfg.data.dataset,
        data.num_samples,
        data.num_classes,
        counts[0],
        counts[-1],
        data.split.hash[:12],
    )
    log.info("%s, %.1f M parameters; run folder %s", cfg.backbone.name, params, cfg.output_dir)


def main(command: list[str] | None = None) -> None:
    """Entry point of ``scripts/pretrain.py`` and ``ltplugins pretrain``; see :func:`launch`."""
    if is_multirun(sys.argv[1:]):
        from ltplugins.stages import multirun

        multirun.main("pretrain")
        return
    launch(pretrain, "pretrain", command)
