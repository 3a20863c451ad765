# SPDX-License-Identifier: MIT
"""Pretraining: a composed config in, a run folder with checkpoints and metrics out."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from omegaconf import DictConfig, OmegaConf

from ltplugins.config.data import training_set
from ltplugins.config.identity import identity
from ltplugins.config.resolve import check_method, resolve
from ltplugins.data.datamodule import build_datamodule
from ltplugins.data.sources.base import content_hash
from ltplugins.data.training_set import TrainingSet
from ltplugins.eval.protocol import EvalConfig
from ltplugins.host import prepare
from ltplugins.host.build import build_model
from ltplugins.runs.facts import Origin, SplitFacts
from ltplugins.stages.blocks import config_blocks, run_keys
from ltplugins.stages.launch import launch
from ltplugins.stages.sweep import is_multirun
from ltplugins.training.faults.ranks import watch_parent
from ltplugins.training.fit import Job, Training
from ltplugins.training.shots import ShotGroups

log = logging.getLogger(__name__)


def pretrain(cfg: DictConfig) -> Path:
    """Train the config's method and return the run's folder.

    The same config again continues an interrupted run, and leaves a finished one as it is.

    Raises:
        UserError: anything wrong with the config, the data or the folder, before training starts.
    """
    from ltplugins.host import METHODS

    host = prepare()
    watch_parent()
    cfg = resolve(cfg, config_blocks)
    check_method(cfg, METHODS)
    pl.seed_everything(cfg.seed, workers=False, verbose=False)
    data = training_set(cfg)
    module = build_datamodule(data, cfg.seed)
    cfg.data.num_samples, cfg.data.num_classes = data.num_samples, data.num_classes
    training = Training(cfg, cfg.output_dir, str(cfg.method))
    model = build_model(cfg, training.world_size, data.record.small_stem)
    what = identity(cfg, training.world_size)
    what |= {"split_hash": data.split.hash, "data_hash": content_hash(data.source)}
    if data.ood_source is not None:
        what["ood_hash"] = content_hash(data.ood_source)
    rules = OmegaConf.select(cfg, "eval.groups") or EvalConfig().groups
    job = Job(
        model=model,
        data=module,
        config=cfg,
        identity=what,
        origin=Origin(
            method=str(cfg.method),
            host=host.label,
            split=SplitFacts.of(data.split, data.class_names),
        ),
        announce=lambda: _show_start(cfg, data, model, host.describe()),
        callbacks=[ShotGroups(data.class_counts.tolist(), rules[0])],  # the rule that reports show
    )
    return training.fit(job)


def _show_start(cfg: DictConfig, data: TrainingSet, model: Any, host: str) -> None:
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/pretrain.py`` and ``ltplugins pretrain``; see :func:`launch`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if is_multirun(arguments):
        from ltplugins.stages import multirun

        multirun.main(arguments, "pretrain")
        return
    launch(pretrain, "pretrain", run_keys, arguments)
