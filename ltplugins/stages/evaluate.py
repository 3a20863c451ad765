# SPDX-License-Identifier: MIT
"""Evaluation of a run folder or checkpoint: features once, kNN and probes, ``results.json``."""

import dataclasses
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from omegaconf import DictConfig, OmegaConf

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import Section, parse
from ltplugins.data.imbalance import make_split
from ltplugins.data.sources.build import has_test_part
from ltplugins.eval.extractor import FeatureExtractor, check_split, find_device
from ltplugins.eval.protocol import EvalConfig, evaluate_features
from ltplugins.eval.results import Results, SplitName
from ltplugins.host import prepare
from ltplugins.report.table import RunResult
from ltplugins.report.terminal import results_table
from ltplugins.runs.checkpoint import open_run
from ltplugins.runs.facts import now
from ltplugins.stages.blocks import typed_keys
from ltplugins.stages.command import quote_run
from ltplugins.stages.launch import launch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateKeys(Section):
    """``ltplugins evaluate``: its keys. A run's own ``eval`` block is overridden by this one."""

    run: str  # a run folder or a checkpoint
    eval: EvalConfig = field(default_factory=EvalConfig)
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    batch_size: Annotated[int, AtLeast(1)] = 256


def evaluate(cfg: DictConfig) -> Results:
    """Evaluate ``cfg.run`` and write ``results.json`` beside it; return what was written.

    Keys: see :class:`EvaluateKeys`.

    Raises:
        UserError: a wrong key or value, no such run, no test part, anything that the protocols
            refuse.
    """
    prepare()
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("run is missing: ltplugins evaluate RUN, a run folder or a checkpoint.")
    asked = parse(EvaluateKeys, OmegaConf.to_container(cfg, resolve=True), "")  # type: ignore[arg-type]
    options = asked.eval
    run = open_run(asked.run)
    data = run.cfg.data
    if not has_test_part(data):
        raise UserError("the run's config names no test images. Set data.val_path in config.yaml.")
    extract = FeatureExtractor(run, find_device(asked.device), asked.batch_size)
    split = make_split(extract.train.targets, extract.train.num_classes, data.imbalance)
    check_split(run, split.hash)
    use_train = "train" in {
        options.knn.bank if options.knn else None,
        options.linear.fit_on if options.linear else None,
    }
    train = extract("train", extract.train.subset(split.indices)) if use_train else None
    probe, test = extract("probe"), extract("test")
    scores = evaluate_features(
        train, probe, test, split.class_counts.tolist(), options, extract.classifier
    )
    results = Results(
        **vars(scores),
        run=run.cfg.name,
        method=run.label,
        seed=run.cfg.seed,
        epoch=run.epoch,
        host=run.origin.host if run.origin else None,
        dataset=data.dataset,
        split=SplitName(split.hash, split.description),
        class_names=[str(n) for n in extract.train.class_names],
        features=extract.keys,
        options=dataclasses.asdict(options),
        evaluated=now(),
    )
    results.write(run.path / "results.json")
    return results


def _show(cfg: DictConfig) -> None:
    results = evaluate(cfg)
    make_console().print(results_table([RunResult(f"{results.method} ({results.run})", results)]))
    make_console().print(f"written: {open_run(cfg.run).path / 'results.json'}", highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/evaluate.py`` and ``ltplugins evaluate``; see :func:`launch`."""
    words = [quote_run(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    launch(_show, "evaluate", lambda _: typed_keys(EvaluateKeys), words)
