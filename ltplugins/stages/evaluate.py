# SPDX-License-Identifier: MIT
"""Evaluation of a run folder or checkpoint: features once, kNN and probes, ``results.json``."""

import dataclasses
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.files import write_json
from ltplugins.core.schema import parse
from ltplugins.data.augment.pil import eval_transform
from ltplugins.data.augment.schema import parse_augmentations
from ltplugins.data.datamodule import EvalDataset
from ltplugins.data.imbalance import make_split
from ltplugins.data.sources.base import Source, content_hash
from ltplugins.data.sources.build import build_source, has_test_part
from ltplugins.eval.features import cached_features, extract_features, feature_key
from ltplugins.eval.protocol import EvalConfig, Features, evaluate_features
from ltplugins.report.table import RunResult, results_table
from ltplugins.runs.loading import TrainedRun, load_trained, open_run
from ltplugins.stages.launch import launch

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate ``cfg.run`` and write ``results.json`` beside it; return what was written.

    Keys: ``run``, ``eval`` (see EvalConfig; a run's own ``eval`` block is overridden by the one
    given), ``device`` (auto, cpu, cuda), ``batch_size``.

    Raises:
        UserError: no such run, no test part, anything that the protocols refuse.
    """
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("run is missing: ltplugins evaluate RUN, a run folder or a checkpoint.")
    options = parse(EvalConfig, OmegaConf.to_container(cfg.eval, resolve=True), "eval")  # type: ignore[arg-type]
    run = open_run(cfg.run)
    if not has_test_part(run.cfg.data):
        raise UserError("the run's config names no test images. Set data.val_path in config.yaml.")
    extract = FeatureExtractor(run, find_device(cfg.device), cfg.batch_size)
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


class FeatureExtractor:
    """Features of a run's backbone on the parts of its data set, cached in the run's folder."""

    def __init__(self, run: TrainedRun, device: str, batch_size: int) -> None:
        self.run, self.device, self.batch_size = run, device, batch_size
        self.train = build_source(run.cfg.data, "train")
        model = load_trained(run, self.train.record)
        self.backbone = model.backbone
        # Where the method has one: a supervised method is judged by what it itself says, too.
        self.classifier = model.class_logits if getattr(model, "own_classifier", False) else None
        self.keys: dict[str, str] = {}

    def __call__(self, part: str, source: Source | None = None) -> Features:
        """Extract (or read) the features of part "probe", "test" or "train"."""
        source = source or build_source(self.run.cfg.data, part)  # type: ignore[arg-type]
        augmentations = OmegaConf.to_container(self.run.cfg.augmentations, resolve=True)
        block = parse_augmentations(augmentations)[0]  # type: ignore[arg-type]
        shape = (block.crop_size, block.mean or source.record.mean, block.std or source.record.std)
        data = f"{self.run.cfg.data.dataset}/{part} {content_hash(source)}"
        key = feature_key(self.backbone, data, f"eval_transform{shape}")
        self.keys[part] = key

        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            dataset = EvalDataset(source, eval_transform(source.record, *shape))
            workers = self.run.cfg.data.num_workers
            loader = DataLoader(dataset, self.batch_size, num_workers=workers)
            log.info("%s: features of %d %s images", self.run.cfg.method, len(source), part)
            return extract_features(self.backbone, loader, self.device)

        return Features(*cached_features(key, self.run.path / "features", compute))


def check_split(run: TrainedRun, found: str) -> None:
    """The groups come from the training counts: they must be those of the training.

    Raises:
        UserError: the data set now gives another split.
    """
    expected = run.meta.get("split", {}).get("hash")
    if expected not in (None, found):
        raise UserError(
            f"{run.path}: the split now has hash {found[:12]}, the run was trained on "
            f"{expected[:12]}. The data set has changed; evaluate where it was trained."
        )


def find_device(name: str) -> str:
    """``auto`` as what is here; other names as they are."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


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
