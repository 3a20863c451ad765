# SPDX-License-Identifier: MIT
"""Pretraining: a composed config in, a run folder with checkpoints and metrics out."""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from omegaconf import DictConfig, OmegaConf

from ltplugins.config.data import training_set
from ltplugins.config.identity import data_hashes, identity
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.data.datamodule import build_datamodule
from ltplugins.data.training_set import TrainingSet
from ltplugins.eval.features import state_hash
from ltplugins.eval.foresight import lacking
from ltplugins.eval.options import EvalConfig
from ltplugins.host import prepare
from ltplugins.host.build import build_model
from ltplugins.host.pretrained import load_pretrained
from ltplugins.runs.facts import FirstStage, Origin, SplitFacts
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.blocks import config_blocks, run_keys
from ltplugins.stages.launch import launch
from ltplugins.stages.sweep import is_multirun
from ltplugins.training.announce import announce
from ltplugins.training.check import check_run
from ltplugins.training.faults.ranks import PARENT, watch_parent
from ltplugins.training.fit import Job, Training
from ltplugins.training.health import HealthWatch
from ltplugins.training.memory import needed_bytes
from ltplugins.training.resume import open_start
from ltplugins.training.shots import ShotGroups

log = logging.getLogger(__name__)


def pretrain(cfg: DictConfig) -> Path:
    """Train the config's method and return the run's folder.

    The same config again continues an interrupted run, and leaves a finished one as it is.

    Raises:
        UserError: anything wrong with the config, the data or the folder, before training starts.
    """
    host = prepare()
    watch_parent()
    config = resolve(cfg, config_blocks)
    check_run(config)
    start = open_start(config)
    pl.seed_everything(config.seed, workers=False, verbose=False)
    data = training_set(config)
    module = build_datamodule(data, config.seed)
    config = config.with_counts(data.num_samples, data.num_classes)
    training = Training(config, config.output_dir, config.method)
    model = build_model(config.host, training.world_size, data.record.small_stem)
    load_pretrained(model, config.host)
    needed = needed_bytes(config, model)
    split = SplitFacts.of(data.source, data.split)
    options: EvalConfig = config.blocks["eval"]
    resumed = None
    if start is not None:
        resumed = FirstStage(str(start.path), start.epochs, state_hash(start.state))
    known = {"resumed_from": resumed.weights} if resumed else {}
    job = Job(
        model=model,
        data=module,
        config=config.host,
        identity=identity(config, training.world_size) | data_hashes(data) | known,
        origin=Origin(method=config.method, host=host.label, split=split, resumed_from=resumed),
        announce=lambda: announce(
            config, data, model, host, training.device, needed, lacking(data, options)
        ),
        callbacks=_callbacks(config, data),
        start=start,
    )
    return training.start(job)


def _callbacks(config: RunConfig, data: TrainingSet) -> list[pl.Callback]:
    """What is logged of the features while they are learnt."""
    options: EvalConfig = config.blocks["eval"]
    rules = options.groups or EvalConfig().groups
    shots = ShotGroups(data.class_counts.tolist(), rules[0])  # the rule that reports show
    health = config.health
    return [shots, HealthWatch(health.every, health.images)] if health.enabled else [shots]


def _show(cfg: DictConfig) -> None:
    path = pretrain(cfg)
    stored: Any = OmegaConf.to_container(RunFolder(path).config())
    config = resolve(stored)
    written = [p for p in ("config.yaml", "run.json", "metrics.csv") if (path / p).exists()]
    if (
        not config.checkpoint.enabled or PARENT in os.environ
    ):  # nothing to evaluate; or a sweep will
        log.info("written: %s (%s)", path, ", ".join(written))
        return
    log.info("written: %s (%s, checkpoints/last.ckpt)", path, ", ".join(written))
    test = "" if config.data.has_test_part else " data.val_path=PATH"
    log.info("next: ltplugins evaluate %s%s", shlex.quote(str(path)), test)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/pretrain.py`` and ``ltplugins pretrain``; see :func:`launch`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if is_multirun(arguments):
        from ltplugins.stages import multirun

        multirun.main(arguments, "pretrain")
        return
    launch(_show, "pretrain", run_keys, arguments)
