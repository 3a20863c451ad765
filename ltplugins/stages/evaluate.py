# SPDX-License-Identifier: MIT
"""Evaluation of a run folder or checkpoint: features once, kNN and probes, ``results.json``."""

import dataclasses
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from omegaconf import DictConfig, OmegaConf

from ltplugins.config.data import DataPaths
from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.files import write_text
from ltplugins.core.ranges import AtLeast
from ltplugins.core.schema import Section, parse
from ltplugins.eval.banks import Features
from ltplugins.eval.changes import DataChanged
from ltplugins.eval.earlier import is_of, joined, put_aside, read_earlier, with_rules_of
from ltplugins.eval.extractor import FeatureExtractor, find_device
from ltplugins.eval.health import measure_health
from ltplugins.eval.keep import keep_gallery
from ltplugins.eval.options import EvalConfig
from ltplugins.eval.parts import Parts
from ltplugins.eval.plan import require_protocols
from ltplugins.eval.protocol import evaluate_features
from ltplugins.eval.results import Results, Scores, SplitName
from ltplugins.host import prepare
from ltplugins.metrics.collapse import Health
from ltplugins.report.evaluated import RunResult
from ltplugins.report.rows import progress_mark
from ltplugins.report.terminal import show_results
from ltplugins.runs.checkpoint import TrainedRun, open_run
from ltplugins.runs.facts import now
from ltplugins.runs.mend import CONFIG
from ltplugins.runs.places import ARGS, RUN_FILE
from ltplugins.stages.blocks import typed_keys
from ltplugins.stages.command import quote_run
from ltplugins.stages.launch import launch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateKeys(Section):
    """``ltplugins evaluate``: its keys. A run's own ``eval`` block is overridden by this one."""

    run: str  # a run folder or a checkpoint
    eval: EvalConfig = field(default_factory=EvalConfig)
    data: DataPaths = field(default_factory=DataPaths)  # what lies elsewhere now, or came later
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    batch_size: Annotated[int, AtLeast(1)] = 256
    out: str | None = None  # folder of results and features; null: the run's own


def evaluate(cfg: DictConfig) -> Results:
    """Evaluate ``cfg.run`` and write ``results.json`` beside it; return what was written.

    Keys: see :class:`EvaluateKeys`. A protocol that cannot run is named in a warning and in the
    results; it takes no other with it. Other protocols of the same features that an earlier
    evaluation has written stay; those of the same name are replaced.

    Raises:
        UserError: a wrong key or value, no such run, no test images, training data that are not
            those of the run, no protocol that can run, or results that cannot be read.
    """
    prepare()
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("run is missing: ltplugins evaluate RUN, a run folder or a checkpoint.")
    asked = parse(EvaluateKeys, OmegaConf.to_container(cfg, resolve=True), "")  # type: ignore[arg-type]
    device = find_device(asked.device)
    options = asked.eval
    run = _placed(open_run(asked.run), asked.out)
    path = run.path / "results.json"
    earlier = read_earlier(path)
    parts = Parts(run, asked.data, options.banks())
    extract = FeatureExtractor(run, parts, device, asked.batch_size)
    require_protocols(options, extract.classifier is not None)
    test = extract("test")
    counts = None if parts.class_counts is None else [int(n) for n in parts.class_counts]
    same = earlier and is_of(earlier, extract.keys["test"], extract.contents["test"], counts)
    options = with_rules_of(options, earlier if same else None)
    banks, absent = _banks(extract, options)
    scores = _score(parts, extract, options, test, banks, absent)
    found = measure_health(options.health, test, extract.two_views) if options.health else None
    ill = _tell_health(found) if found else []
    scores = dataclasses.replace(scores, notes=[*scores.notes, *ill, *parts.notes])
    results = dataclasses.replace(_results(run, parts, scores, extract, asked), health=found)
    if earlier is not None and same:
        results = joined(earlier, results)
    elif earlier is not None:
        put_aside(path, earlier)
    results.write(path)
    _keep_config(run, anew=earlier is not None and not same)
    if options.pictures:
        keep_gallery(run.path, extract, results, test, banks, options.pictures)
    return results


def _keep_config(run: TrainedRun, anew: bool) -> None:
    """Beside results that lie apart from their run: what a report reads of it.

    Args:
        run: what was evaluated, with the folder of its results.
        anew: those that were there are of another one.
    """
    if (run.path / RUN_FILE).exists():
        return
    if anew or not any((run.path / name).exists() for name in (CONFIG, ARGS)):
        write_text(run.path / CONFIG, OmegaConf.to_yaml(run.cfg.host))


def _placed(run: TrainedRun, out: str | None) -> TrainedRun:
    """The run, whose results go to ``out``.

    Raises:
        UserError: nothing can be written there.
    """
    if out is not None:
        run = dataclasses.replace(run, path=Path(out))
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"out: expected a folder that can be made, got {out} ({error.strerror}). Give "
                f"another."
            ) from None
    # A zoo entry's folder is made with the first file in it.
    there = next(folder for folder in (run.path, *run.path.absolute().parents) if folder.exists())
    if not os.access(there, os.W_OK):
        raise UserError(
            f"{run.path} cannot be written: results.json and the features go there. Give another "
            f"folder for them, out=FOLDER."
        )
    return run


def _score(
    parts: Parts,
    extract: FeatureExtractor,
    options: EvalConfig,
    test: Features,
    banks: Mapping[str, Features],
    absent: Mapping[str, str],
) -> Scores:
    """Every protocol that can run; of the others a warning says why they cannot."""
    scores = evaluate_features(
        banks.get("train"),
        banks.get("probe"),
        test,
        parts.class_counts,
        options,
        extract.classifier,
        num_classes=len(parts.class_names),
        class_names=parts.class_names,
        words=parts.describe(),
        absent=absent,
        places=extract.places,
    )
    for name, reason in scores.failed.items():
        log.warning("%s is left out: %s", name, reason)
    return scores


def _tell_health(found: Health) -> list[str]:
    """Say it in a line; what has collapsed is returned, for the notes."""
    told = f"RankMe {found.rankme:.1f} of {min(found.images, found.dim)}"
    told += f", uniformity {found.uniformity:.2f}, {found.dead:.0%} dead dimensions"
    told += "" if found.alignment is None else f", alignment {found.alignment:.2f}"
    log.info("health of the features: %s", told)
    alarm = found.alarm()
    if alarm is None:
        return []
    log.warning("health: %s.", alarm)
    return [f"health: {alarm}."]


def _banks(
    extract: FeatureExtractor, options: EvalConfig
) -> tuple[dict[str, Features], dict[str, str]]:
    """The features of the banks that are asked for, and why some are not there."""
    found: dict[str, Features] = {}
    absent: dict[str, str] = {}
    for name in sorted(options.banks()):
        try:
            found[name] = extract(name)
        except DataChanged:
            raise
        except UserError as error:
            absent[name] = str(error)
    return found, absent


def _results(
    run: TrainedRun,
    parts: Parts,
    scores: Scores,
    extract: FeatureExtractor,
    asked: EvaluateKeys,
) -> Results:
    split, progress = parts.split_facts, run.whole_progress
    if parts.class_counts is None:
        sizes = dataclasses.replace(scores.sizes, train=split.num_samples)
        scores = dataclasses.replace(scores, sizes=sizes)
    return Results(
        **vars(scores),
        run=run.cfg.name,
        method=run.label,
        seed=run.cfg.seed,
        epoch=progress.epochs if progress else run.epoch,
        progress=progress,
        host=run.origin.host if run.origin else None,
        dataset=run.cfg.data.dataset,
        split=SplitName(split.hash, split.description),
        class_names=parts.class_names,
        features=extract.keys,
        options=dataclasses.asdict(asked.eval),
        evaluated=now(),
        contents=split.contents,
        parts=extract.contents,
        data=asked.data.given(),
    )


def _show(cfg: DictConfig) -> None:
    results = evaluate(cfg)
    told = ", ".join(filter(None, (results.run, progress_mark(results.progress))))
    show_results([RunResult(f"{results.method} ({told})", results)])
    folder = cfg.get("out") or open_run(cfg.run).path
    make_console().print(f"written: {Path(folder) / 'results.json'}", highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/evaluate.py`` and ``ltplugins evaluate``; see :func:`launch`."""
    words = [quote_run(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    launch(_show, "evaluate", lambda _: typed_keys(EvaluateKeys), words)
