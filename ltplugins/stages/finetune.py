# SPDX-License-Identifier: MIT
"""Fine-tuning: a finished run in, a new run folder with a classifier and its ``results.json`` out.

The first run is only read. Without one, a network's own weights (a baseline) or none are taken. The
new folder holds the config with a block ``finetune``; it is called ``<method>+<mode>`` in results.
"""

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf

from ltplugins.config.identity import data_hashes
from ltplugins.config.run import RunConfig
from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.data.augment.schema import AugmentationBlock, normalisation
from ltplugins.data.datamodule import LTDataModule
from ltplugins.data.schema import DataConfig
from ltplugins.data.sources.contents import content_hash
from ltplugins.downstream.ending import Rebalance, ending
from ltplugins.downstream.finetune import FineTuner
from ltplugins.downstream.images import Images, features_of, split_images, whole_set
from ltplugins.downstream.options import FinetuneConfig
from ltplugins.downstream.scores import PROTOCOL, score
from ltplugins.downstream.settings import finetune_config
from ltplugins.downstream.start import Start, opened, start_from
from ltplugins.eval.changes import require_same
from ltplugins.eval.extractor import find_device
from ltplugins.eval.features import cached_features, feature_key
from ltplugins.eval.results import Results, SplitName
from ltplugins.host import prepare
from ltplugins.host.builtin.optim import require_optimizer
from ltplugins.report.evaluated import RunResult
from ltplugins.report.terminal import show_results
from ltplugins.runs.checkpoint import TrainedRun, open_finished
from ltplugins.runs.facts import Origin, SplitFacts, now
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
    first = None if options.run is None else open_finished(options.run, "finetune")
    options, given = opened(options)
    config = finetune_config(first, options)
    out = Path(config.output_dir)
    if first is not None and out.resolve() == first.path.resolve():
        raise UserError(f"output_dir is the run itself ({out}), which is never written to.")
    pl.seed_everything(config.seed, workers=False, verbose=False)
    training = Training(config, out, "finetune")
    images = _images(first, config, options, training.world_size)
    start = start_from(first, given, config, images.whole.record, options)
    counts = torch.from_numpy(images.fit.class_counts)
    scale = options.batch_size * training.world_size / 256
    model = FineTuner(start, options, counts, scale)
    callbacks = ending(options, partial(_features, images, config), config.seed)
    origin = _origin(config, options, start, images, host.label)
    job = Job(
        model=model,
        data=LTDataModule(images.fit, config.seed, images.held_out),
        config=_stored_config(config, options),
        identity=_identity(config, options, start, images, training.world_size),
        origin=origin,
        announce=partial(_announce, origin, images, out),
        conclude=lambda: _conclude(model, images, config, options, origin, callbacks),
        callbacks=callbacks,
    )
    return training.start(job)


def _features(
    images: Images, config: RunConfig, module: FineTuner, part: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of the images that are trained on, ``fit``, or of the others, ``held_out``."""
    whole = images.whole.source
    source = images.held_out if part == "held_out" else whole.subset(images.fit.split.indices)
    return features_of(module.backbone, source, config, module.device)


def _announce(origin: Origin, images: Images, out: Path) -> None:
    count, held_out = images.fit.num_samples, len(images.held_out)
    log.info("%s: %s images, %s held out, new run folder %s", origin.label, count, held_out, out)


def _origin(
    config: RunConfig, options: FinetuneConfig, start: Start, images: Images, host: str
) -> Origin:
    return Origin(
        method=config.method,
        host=host,
        split=SplitFacts.of(images.whole.source, images.whole.split),
        label=f"{start.label}+{options.mode}",
        stage_1=start.stage_1,
    )


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
    shape = (block.crop_size, *normalisation(block, source.record))
    # As an evaluation names them, which then finds them.
    data = f"{config.data.dataset}/test {contents}"
    key = feature_key(model.backbone, data, f"eval_transform{shape}")
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
