# SPDX-License-Identifier: MIT
"""Classifier balancing: a finished run in, a new run folder with a re-trained classifier out.

The first run is only read. The new folder holds the first run's config (with a block ``balance``),
its split and its whole method, so that everything that takes a run takes it; it is called
``<method>+balance`` in results.
"""

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf

from ltplugins.catalogue.store import is_zoo
from ltplugins.config.data import DataPaths, training_set
from ltplugins.config.identity import data_hashes
from ltplugins.config.listeners import leave_named_loggers
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.data.datamodule import LTDataModule
from ltplugins.data.samplers.base import require_step
from ltplugins.data.training_set import TrainingSet
from ltplugins.eval.changes import require_same
from ltplugins.eval.extractor import FeatureExtractor, find_device
from ltplugins.eval.features import state_hash
from ltplugins.eval.parts import Parts
from ltplugins.host import prepare
from ltplugins.metrics.groups import group_accuracy, shot_groups
from ltplugins.runs.checkpoint import TrainedRun, open_finished, open_run, require_run
from ltplugins.runs.facts import FirstStage, Origin, SplitFacts
from ltplugins.runs.model import load_trained
from ltplugins.stages.blocks import typed_keys
from ltplugins.stages.command import quote_run
from ltplugins.stages.launch import launch
from ltplugins.training.balancer import BalanceConfig, ClassifierBalancer
from ltplugins.training.fit import Job, Training

log = logging.getLogger(__name__)

# Where things lie and on what they run: not what the numbers depend on.
_NOT_IDENTITY = ("run", "output_dir", "data", "accelerator", "devices", "overwrite")


def balance(cfg: DictConfig) -> Path:
    """Re-train the classifier of ``cfg.run`` with class-aware sampling; return the new folder.

    Keys: see :class:`BalanceConfig`. The same call again continues an interrupted stage and leaves
    a finished one as it is.

    Raises:
        UserError: no finished run with a classifier of its own, values that cannot be, data that
            have changed, a folder that holds something else.
    """
    host = prepare()
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("run is missing: ltplugins balance RUN, the folder of a finished run.")
    plain = OmegaConf.to_container(cfg, resolve=True)
    options = parse(BalanceConfig, plain, "")  # type: ignore[arg-type]
    first = _moved(_open_first(options.run), options.data)
    out = Path(options.output_dir or f"{str(options.run).rstrip('/')}-balanced")
    if out.resolve() == first.path.resolve():
        raise UserError(f"output_dir is the run itself ({out}), which is never written to.")
    pl.seed_everything(options.seed, workers=False, verbose=False)
    cfg_here = _training_config(first.cfg, options)
    training = Training(cfg_here, out, "balance")
    assert first.origin is not None, "it is a run folder's"
    images = first.origin.split.num_samples
    said = f"{first.path} was trained on {images} images"
    require_step(images, options.batch_size, training.world_size, said)
    data = training_set(cfg_here)
    require_same(first, data.source, data.split)
    method = load_trained(first, data.record)
    scale = options.batch_size * training.world_size / 256
    weights = state_hash(first.state)
    job = Job(
        model=ClassifierBalancer(method, options, scale),
        data=LTDataModule(data, options.seed),  # no test images: it is scored once, at the end
        config=_stored_config(first.cfg.host, options, out),
        identity=_identity(options, weights, data, training.world_size),
        origin=_origin(first, data, host.label, weights),
        announce=lambda: log.info(
            "classifier of %s (%s), new run folder %s", options.run, first.cfg.method, out
        ),
        conclude=lambda: {"classifier": _compare(first, out, data.class_counts)},
    )
    return training.start(job)


def classifier_scores(run: TrainedRun, class_counts: Any) -> dict[str, dict[str, Any]]:
    """Top-1 of a run's own classifier on the test images, by rule: overall, many, medium, few.

    Args:
        run: features are cached in its ``path``.
        class_counts: Int[C] of the training.
    """
    extract = FeatureExtractor(run, Parts(run), find_device("auto"), 256)
    feats, targets = extract("test")
    assert extract.classifier is not None
    with torch.no_grad():
        preds = extract.classifier(feats).argmax(dim=1)
    scores = {}
    for rule in ("tercile", "threshold"):
        groups = shot_groups(class_counts, rule)
        numbers = group_accuracy(preds, targets, groups, len(class_counts)).as_dict()
        scores[rule] = {key: numbers[key] for key in ("overall", "many", "medium", "few")}
    return scores


def _open_first(path: str) -> TrainedRun:
    """The run to start from, which must be finished and have a classifier that training learned."""
    from ltplugins.host import METHODS

    if is_zoo(path):
        raise UserError(
            f"{path} holds a backbone alone, without the classifier that a balancing trains: "
            f"expected a run's folder. ltplugins finetune {path} trains a new classifier on it."
        )
    require_run(Path(path))
    run = open_finished(path, "balance", takes_checkpoint=False)
    method = METHODS.get(run.cfg.method)
    if not getattr(method, "own_classifier", False):
        known = sorted(n for n, m in METHODS.items() if getattr(m, "own_classifier", False))
        raise UserError(
            f"{path} is a run of {run.cfg.method}, which learns no classifier (its online one is a "
            f"detached probe). Methods that learn one: {', '.join(known)}. For the others, "
            f"ltplugins evaluate fits probes."
        )
    return run


def _moved(first: TrainedRun, paths: DataPaths) -> TrainedRun:
    """The run with its data where they lie now."""
    if not paths.given():
        return first
    paths.over(first.cfg.data)
    cfg = first.cfg.host.copy()
    cfg.data.update(paths.given())
    return dataclasses.replace(first, cfg=resolve(cfg))


def _training_config(first: RunConfig, options: BalanceConfig) -> RunConfig:
    """The first run's data and machine, this stage's sampler, length and seed; one view."""
    cfg = first.host.copy()
    cfg.data.sampler = {"name": "class_aware", "gamma": options.gamma}
    cfg.augmentations = [{**OmegaConf.to_container(cfg.augmentations[0]), "num_crops": 1}]  # type: ignore[dict-item]
    cfg.optimizer.batch_size = options.batch_size
    cfg.update(max_epochs=options.epochs, seed=options.seed, limit_val_batches=0)
    cfg.update(accumulate_grad_batches=1, resume_from_checkpoint=None, name=f"{cfg.name}-balanced")
    # Limits of the first run, and what it was watched by.
    cfg.update(max_steps=-1, max_time=None, fast_dev_run=False, callbacks=None)
    leave_named_loggers(cfg)
    cfg.update(overwrite=options.overwrite)
    cfg.auto_resume = {"enabled": True}
    cfg.checkpoint.update(frequency=1, keep_prev=False)
    if options.accelerator is not None:
        cfg.accelerator = options.accelerator
    if options.devices is not None:
        cfg.devices = options.devices
    return resolve(cfg)


def _stored_config(first: DictConfig, options: BalanceConfig, out: Path) -> DictConfig:
    """What evaluation and report read: the first run's config, and how it was balanced."""
    cfg = first.copy()
    cfg.update(name=f"{cfg.name}-balanced", output_dir=str(out))
    cfg.balance = {k: v for k, v in dataclasses.asdict(options).items() if k != "overwrite"}
    return cfg


def _origin(first: TrainedRun, data: TrainingSet, host: str, weights: str) -> Origin:
    return Origin(
        method=first.cfg.method,
        host=host,
        split=SplitFacts.of(data.source, data.split),
        label=f"{first.label}+balance",
        stage_1=FirstStage(str(first.path), first.epoch, weights),
    )


def _identity(
    options: BalanceConfig, weights: str, data: TrainingSet, world_size: int
) -> dict[str, Any]:
    chosen = dataclasses.asdict(options)
    return {
        "stage": "balance",
        "balance": {k: v for k, v in chosen.items() if k not in _NOT_IDENTITY},
        "stage_1_weights": weights,
        **data_hashes(data),
        "world_size": world_size,
    }


def _compare(first: TrainedRun, out: Path, class_counts: Any) -> dict[str, Any] | None:
    """The classifier before and after, shown and returned by rule; None without test images."""
    if not first.cfg.data.has_test_part:
        log.info("no test images (data.val_path): the classifier is not scored.")
        return None
    # Its features are cached in the new folder: the first one is only read.
    runs = {"before": dataclasses.replace(first, path=out), "after": open_run(out)}
    by_run = {when: classifier_scores(run, class_counts) for when, run in runs.items()}
    scores: dict[str, Any] = {
        rule: {when: by_run[when][rule] for when in runs} for rule in ("tercile", "threshold")
    }
    for when, numbers in scores["tercile"].items():
        shown = ", ".join(
            f"{k} {'n/a' if v is None else f'{100 * v:.1f}'}" for k, v in numbers.items()
        )
        make_console().print(f"classifier {when:6s}: {shown} (groups: tercile)", highlight=False)
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/balance.py`` and ``ltplugins balance``; see :func:`launch`."""
    words = [quote_run(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    launch(balance, "balance", lambda _: typed_keys(BalanceConfig), words)
