# SPDX-License-Identifier: MIT
"""Pretraining: a composed config in, a run folder with checkpoints and metrics out."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
from omegaconf import DictConfig

from ltplugins.config.data import training_set
from ltplugins.config.identity import data_hashes, identity
from ltplugins.config.resolve import check_method, resolve
from ltplugins.data.datamodule import build_datamodule
from ltplugins.eval.protocol import EvalConfig
from ltplugins.host import prepare
from ltplugins.host.build import build_model, check_batches
from ltplugins.host.head import check_head
from ltplugins.methods.registry import split_name
from ltplugins.runs.facts import Origin, SplitFacts
from ltplugins.stages.blocks import config_blocks, run_keys
from ltplugins.stages.launch import launch
from ltplugins.stages.sweep import is_multirun
from ltplugins.training.announce import announce
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
    config = resolve(cfg, config_blocks)
    check_method(config.method, METHODS)
    _, base = split_name(config.method)
    check_head(config.host, base)
    check_batches(config.data.drop_last, base)
    pl.seed_everything(config.seed, workers=False, verbose=False)
    data = training_set(config)
    module = build_datamodule(data, config.seed)
    config = config.with_counts(data.num_samples, data.num_classes)
    training = Training(config, config.output_dir, config.method)
    model = build_model(config.host, training.world_size, data.record.small_stem)
    split = SplitFacts.of(data.split, data.class_names)
    rules = (config.eval or {}).get("groups") or EvalConfig().groups
    job = Job(
        model=model,
        data=module,
        config=config.host,
        identity=identity(config, training.world_size) | data_hashes(data),
        origin=Origin(method=config.method, host=host.label, split=split),
        announce=lambda: announce(config, data, model, host),
        callbacks=[ShotGroups(data.class_counts.tolist(), rules[0])],  # the rule that reports show
    )
    return training.start(job)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/pretrain.py`` and ``ltplugins pretrain``; see :func:`launch`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if is_multirun(arguments):
        from ltplugins.stages import multirun

        multirun.main(arguments, "pretrain")
        return
    launch(pretrain, "pretrain", run_keys, arguments)
