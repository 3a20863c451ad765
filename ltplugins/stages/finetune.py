# SPDX-License-Identifier: MIT
"""Fine-tuning: a finished run in, a new run folder with a classifier and its ``results.json`` out.

The first run is only read. Without one, a network's own weights (a baseline) or none are taken. The
new folder holds the config with a block ``finetune``; it is called ``<method>+<mode>`` in results.
"""

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf

from ltplugins.config.data import DataPaths
from ltplugins.config.identity import data_hashes
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.data.augment.schema import AugmentationBlock
from ltplugins.data.datamodule import LTDataModule
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.contents import content_hash
from ltplugins.downstream.ending import Rebalance, ending
from ltplugins.downstream.finetune import FineTuner, total_epochs
from ltplugins.downstream.images import Images, features_of, split_images, whole_set
from ltplugins.downstream.options import FinetuneConfig
from ltplugins.downstream.scores import PROTOCOL, score
from ltplugins.downstream.start import Start, start_from
from ltplugins.eval.changes import require_same
from ltplugins.eval.extractor import find_device
from ltplugins.eval.features import cached_features, feature_key
from ltplugins.eval.results import Results, SplitName
from ltplugins.host import prepare
from ltplugins.host.builtin.optim import require_optimizer
from ltplugins.report.table import RunResult
from ltplugins.report.terminal import show_results
from ltplugins.runs.checkpoint import TrainedRun, open_run
from ltplugins.runs.facts import Origin, SplitFacts, now
from ltplugins.runs.folder import RunFolder
from ltplugins.stages.blocks import typed_keys
from ltplugins.stages.command import quote_run
from ltplugins.stages.launch import launch
from ltplugins.training.fit import Job, Training

log = logging.getLogger(__name__)

# Where things lie and on what they run: not what the numbers depend on.
_NOT_IDENTITY = ("run", "output_dir", "data", "accelerator", "devices", "overwrite")


def finetune(cfg: DictConfig) -> Path:
    """Train a classifier on ``cfg.run``'s backbone, score it, and return the new folder.

    Keys: see :class:`FinetuneConfig`. The same call again continues an interrupted stage and leaves
    a finished one as it is.

    Raises:
        UserError: keys that do not go together, no finished run, data that have changed or have one
            class, weights that do not fit, a folder that holds something else.
    """
    host = prepare()
    options = parse(FinetuneConfig, OmegaConf.to_container(cfg, resolve=True), "")  # type: ignore[arg-type]
    require_optimizer(options.optimizer)
    first = None if options.run is None else _open_first(options.run)
    config = _training_config(first, options)
    out = Path(config.output_dir)
    if first is not None and out.resolve() == first.path.resolve():
        raise UserError(f"output_dir is the run itself ({out}), which is never written to.")
    pl.seed_everything(config.seed, workers=False, verbose=False)
    training = Training(config, out, "finetune")
    images = _images(first, config, options, training.world_size)
    start = start_from(first, config, images.whole.record, options)
    scale = options.batch_size * training.world_size / 256
    counts = torch.from_numpy(images.fit.class_counts)
    model = FineTuner(start, options, counts, scale)

    def features(module: FineTuner, part: str) -> tuple[torch.Tensor, torch.Tensor]:
        source = images.held_out if part == "held_out" else _fit_source(images)
        return features_of(module.backbone, source, config, module.device)

    callbacks = ending(options, features, config.seed)
    split = SplitFacts.of(images.whole.source, images.whole.split)
    label = f"{start.label}+{options.mode}"
    origin = Origin(
        method=config.method, host=host.label, split=split, label=label, stage_1=start.stage_1
    )
    job = Job(
        model=model,
        data=LTDataModule(images.fit, config.seed, images.held_out),
        config=_stored_config(config, options),
        identity=_identity(config, options, start, images, training.world_size),
        origin=origin,
        announce=lambda: log.info(
            "%s: %s on %s images, %s held out, new run folder %s",
            start.label, options.mode, f"{images.fit.num_samples:,}", len(images.held_out), out,
        ),
        conclude=lambda: _conclude(model, images, config, options, origin, callbacks),
        callbacks=callbacks,
    )  # fmt: skip
    return training.start(job)


def _fit_source(images: Images) -> Any:
    return images.fit.source.subset(images.fit.split.indices)


def _open_first(path: str) -> TrainedRun:
    """The run to start from; a folder's must be finished."""
    run = open_run(path)
    if Path(path).is_dir() and not RunFolder.existing(path).read().is_over:
        raise UserError(
            f"{path} is not finished: it has {run.epoch} epochs. Give its config to ltplugins "
            f"pretrain again, which continues it, then finetune; or give its checkpoint, "
            f"{run.checkpoint}, to start from what it is now."
        )
    return run


def _training_config(first: TrainedRun | None, options: FinetuneConfig) -> RunConfig:
    """The run's data and machine, or those of the options; this stage's length; one view."""
    cfg = _bare_config(options) if first is None else first.cfg.host.copy()
    _set_data(cfg, first, options)
    views = options.augmentations or OmegaConf.to_container(cfg.augmentations)
    cfg.augmentations = [{**views[0], "num_crops": 1}]  # type: ignore[index,dict-item]
    if options.backbone is not None:
        cfg.backbone = dataclasses.asdict(options.backbone)
    elif options.weights == "random":
        cfg.backbone.pretrained = False
    cfg.optimizer.batch_size = options.batch_size
    name, seed = cfg.get("name"), options.seed
    cfg.update(max_epochs=total_epochs(options), overwrite=options.overwrite)
    cfg.update(seed=cfg.get("seed", 0) if seed is None else seed)
    cfg.update(name=f"{name}-{options.mode}" if name else None, output_dir=_folder(cfg, options))
    # Of the first run: its limits, what it was watched by, and how often it was validated.
    cfg.update(max_steps=-1, max_time=None, fast_dev_run=False, callbacks=None)
    cfg.update(accumulate_grad_batches=1, resume_from_checkpoint=None, knn_eval={"enabled": False})
    cfg.update(limit_val_batches=None, val_check_interval=None, check_val_every_n_epoch=1)
    cfg.auto_resume = {"enabled": True}
    cfg.checkpoint = {"enabled": True, "frequency": 1, "keep_prev": False}
    for key in ("accelerator", "devices"):
        if getattr(options, key) is not None:
            cfg[key] = getattr(options, key)
    if options.mode == "lp_ft":  # a probe uses no parameter of the backbone
        cfg.strategy = "ddp_find_unused_parameters_true"
    return resolve(cfg)


def _bare_config(options: FinetuneConfig) -> DictConfig:
    """A config without a run behind it.

    Raises:
        UserError: what a run would say is not given.
    """
    lacking = [
        key
        for key, is_given in (
            ("data.dataset", "dataset" in options.data),
            ("augmentations", bool(options.augmentations)),
            ("backbone.name", options.backbone is not None),
        )
        if not is_given
    ]
    if lacking:
        raise UserError(
            f"run is missing: ltplugins finetune RUN, the folder of a finished run; or, without "
            f"one, set {', '.join(lacking)} as well."
        )
    return OmegaConf.create(
        {
            "method": "finetune",
            "max_epochs": 1,
            "backbone": {"name": ""},
            "data": {},
            "augmentations": [],
            "optimizer": {"name": options.optimizer, "batch_size": 1, "lr": options.lr},
            "accelerator": "auto",
            "devices": 1,
        }
    )


def _set_data(cfg: DictConfig, first: TrainedRun | None, options: FinetuneConfig) -> None:
    """A whole ``data`` block in the place of the run's, or where its own lie now."""
    if "dataset" in options.data:
        cfg.data = {**options.data}
    elif first is not None:
        paths = parse(DataPaths, options.data, "data")
        paths.over(first.cfg.data)
        cfg.data.update(paths.given())
    cfg.data.update(sampler={"name": options.sampler}, ood=None, drop_last=True)


def _folder(cfg: DictConfig, options: FinetuneConfig) -> str:
    if options.output_dir:
        return options.output_dir
    words: list[str] = [options.mode]
    words += [] if options.head == "linear" else [options.head]
    words += [] if options.loss.name == "cross_entropy" else [options.loss.name]
    if options.run is None:
        return "-".join([f"runs/finetune/{cfg.backbone.name}-{cfg.data.dataset}", *words])
    base = Path(options.run)
    if base.is_file():  # a checkpoint: beside the folder that it is of
        base = base.parent.parent if base.parent.name == "checkpoints" else base.with_suffix("")
    start: list[str] = [] if options.weights == "run" else [options.weights]
    start = start if options.backbone is None else [options.backbone.name]
    return "-".join([str(base).rstrip("/"), *start, *words])


def _images(
    first: TrainedRun | None, config: RunConfig, options: FinetuneConfig, world_size: int
) -> Images:
    whole = whole_set(config)
    if first is not None and "dataset" not in options.data:
        require_same(first, whole.source, whole.split)
    return split_images(config, whole, options.validation, world_size)


def _stored_config(config: RunConfig, options: FinetuneConfig) -> DictConfig:
    """What reports and whatever opens the folder read: the config, and how it was fine-tuned."""
    cfg = config.host.copy()
    cfg.finetune = {k: v for k, v in dataclasses.asdict(options).items() if k != "overwrite"}
    return cfg


def _identity(
    config: RunConfig, options: FinetuneConfig, start: Start, images: Images, world_size: int
) -> dict[str, Any]:
    chosen = dataclasses.asdict(options)
    plain: Any = OmegaConf.to_container(config.host)
    return {
        "stage": "finetune",
        "finetune": {k: v for k, v in chosen.items() if k not in _NOT_IDENTITY},
        "seed": config.seed,
        "augmentations": plain["augmentations"],
        "backbone": plain["backbone"],
        "precision": plain.get("precision"),
        "start_weights": start.weights,
        **data_hashes(images.whole),
        "world_size": world_size,
    }


def _conclude(
    model: FineTuner,
    images: Images,
    config: RunConfig,
    options: FinetuneConfig,
    origin: Origin,
    callbacks: Sequence[pl.Callback],
) -> Mapping[str, Any]:
    """Score the classifier and write ``results.json``; without test images say so."""
    source, out = images.whole.test_source, Path(config.output_dir)
    if source is None:
        log.info("no test images (data.val_path): the classifier is not scored.")
        return {}
    device = find_device("cpu" if config.trainer.get("accelerator") == "cpu" else "auto")
    contents = content_hash(source)
    block = config.augmentations[0]
    key = feature_key(model.backbone, f"test {contents}", f"{block.crop_size} {block.mean}")
    feats = cached_features(
        key, out / "features", lambda: features_of(model.backbone, source, config, device)
    )
    held_out = features_of(model.backbone, images.held_out, config, device)
    head = model.classifier.cpu().eval()
    with torch.no_grad():
        test, held = ((head(x), y) for x, y in (feats, held_out))
    tau = next((cb.tau for cb in callbacks if isinstance(cb, Rebalance)), None)
    counts = [int(n) for n in images.whole.class_counts]
    scores = score(test, held, model.counts.cpu(), counts, options, tau)
    results = Results(
        **vars(scores),
        run=config.name,
        method=str(origin.label),
        seed=config.seed,
        epoch=model.current_epoch + (origin.stage_1.epochs if origin.stage_1 else 0),
        host=origin.host,
        dataset=config.data.dataset,
        split=SplitName(origin.split.hash, origin.split.description),
        class_names=[str(name) for name in images.whole.class_names],
        features={"test": key},
        options={},
        evaluated=now(),
        contents=origin.split.contents,
        parts={"test": contents},
    )
    results.write(out / "results.json")
    _show(results, out)
    return {}


def _show(results: Results, out: Path) -> None:
    show_results([RunResult(f"{results.method} ({results.run})", results)])
    entry = results.protocols[PROTOCOL]
    assert entry.calibration is not None
    before, after = (
        100 * (found["tercile"].error["overall"] or 0)
        for found in (entry.calibration.plain, entry.calibration.scaled)
    )
    make_console().print(
        f"balanced {100 * (entry.balanced.mean or 0):.1f}; calibration error {before:.1f}, "
        f"{after:.1f} at temperature {entry.calibration.temperature:.2f}; written: "
        f"{out / 'results.json'}",
        highlight=False,
    )


def finetune_hints(method: str) -> Mapping[str, Any]:
    """The types of the keys; ``data`` is where images lie, or a whole block."""
    own = typed_keys(FinetuneConfig)
    return {**own, "data": DataConfig, "augmentations": list[AugmentationBlock]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/finetune.py`` and ``ltplugins finetune``; see :func:`launch`."""
    words = [quote_run(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    launch(finetune, "finetune", finetune_hints, words)
