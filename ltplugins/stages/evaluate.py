# SPDX-License-Identifier: MIT
"""Evaluation of a run folder or checkpoint: features once, kNN and probes, ``results.json``."""

import dataclasses
import logging
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.files import write_json
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import parse
from ltplugins.data.imbalance import make_split
from ltplugins.data.sources.build import has_test_part
from ltplugins.eval.extractor import FeatureExtractor, check_split, find_device
from ltplugins.eval.protocol import EvalConfig, evaluate_features
from ltplugins.report.table import RunResult
from ltplugins.report.terminal import results_table
from ltplugins.runs.checkpoint import open_run
from ltplugins.stages.launch import launch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateKeys:
    """``ltplugins evaluate``: its keys. A run's own ``eval`` block is overridden by this one."""

    run: str  # a run folder or a checkpoint
    eval: EvalConfig = field(default_factory=EvalConfig)
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    batch_size: Annotated[int, AtLeast(1)] = 256


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate ``cfg.run`` and write ``results.json`` beside it; return what was written.

    Keys: see :class:`EvaluateKeys`.

    Raises:
        UserError: a wrong key or value, no such run, no test part, anything that the protocols
            refuse.
    """
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("run is missing: ltplugins evaluate RUN, a run folder or a checkpoint.")
    asked = parse(EvaluateKeys, OmegaConf.to_container(cfg, resolve=True), "")  # type: ignore[arg-type]
    options = asked.eval
    run = open_run(asked.run)
    if not has_test_part(run.cfg.data):
        raise UserError("the run's config names no test images. Set data.val_path in config.yaml.")
    extract = FeatureExtractor(run, find_device(asked.device), asked.batch_size)
    split = make_split(
        extract.train.targets, extract.train.num_classes, run.cfg.data.get("imbalance")
    )
    check_split(run, split.hash)
    use_train = "train" in {
        options.knn.bank if options.knn else None,
        options.linear.fit_on if options.linear else None,
    }
    train = extract("train", extract.train.subset(split.indices)) if use_train else None
    probe, test = extract("probe"), extract("test")
    results = evaluate_features(
        train, probe, test, split.class_counts.tolist(), options, extract.classifier
    )
    results.update(
        run=str(run.cfg.name),
        method=str(run.meta.get("label", run.cfg.method)),
        seed=int(run.cfg.seed),
        epoch=run.epoch,
        host=run.meta.get("host"),
        dataset=str(run.cfg.data.dataset),
        split={"hash": split.hash, "description": split.description},
        class_names=[str(n) for n in extract.train.class_names],
        features=extract.keys,
        options=dataclasses.asdict(options),
        evaluated=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(run.path / "results.json", results)
    return results


def _show(cfg: DictConfig) -> None:
    results = evaluate(cfg)
    name = f"{results['method']} ({results['run']})"
    make_console().print(results_table([RunResult(name, results)]))
    make_console().print(f"written: {open_run(cfg.run).path / 'results.json'}", highlight=False)


def quote_run(argument: str) -> str:
    """Quote a path for Hydra, whose grammar stops at "=", "," and blanks."""
    key, _, path = argument.partition("=")
    if key != "run" or path[:1] in ("'", '"'):
        return argument
    escaped = path.replace("'", r"\'")
    return f"run='{escaped}'"


def main(command: list[str] | None = None) -> None:
    """Entry point of ``scripts/evaluate.py`` and ``ltplugins evaluate``; see :func:`launch`."""
    sys.argv[1:] = [quote_run(argument) for argument in sys.argv[1:]]
    launch(_show, "evaluate", command)
