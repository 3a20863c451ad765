# SPDX-License-Identifier: MIT
"""Segmentation: a trained encoder in, a new run folder with a segmentation and its mIoU out.

The encoder's run is only read. The new folder holds its options, its checkpoints, ``results.json``
and pictures; it is called ``<method>+<decoder>`` in results.
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

from ltplugins.catalogue.store import PREFIX, is_zoo
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.console import make_console
from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.data.samplers.base import require_step
from ltplugins.downstream.segmentation.conclude import conclude_segmentation
from ltplugins.downstream.segmentation.data import MaskModule
from ltplugins.downstream.segmentation.decoders import build_network, import_smp
from ltplugins.downstream.segmentation.options import SegmentConfig
from ltplugins.downstream.segmentation.results import SegmentResults
from ltplugins.downstream.segmentation.segmenter import Segmenter
from ltplugins.downstream.segmentation.sets import MaskSet, on_the_split_of, open_masks
from ltplugins.downstream.segmentation.views import FILE_CROP, Normalise, PlainView, TrainView
from ltplugins.eval.features import weights_hash
from ltplugins.host import prepare
from ltplugins.runs.checkpoint import TrainedRun, open_finished
from ltplugins.runs.facts import FirstStage, Origin, SplitFacts
from ltplugins.runs.places import RUN_FILE, name_of
from ltplugins.stages.blocks import typed_keys
from ltplugins.stages.command import quote_run
from ltplugins.stages.launch import launch
from ltplugins.training.fit import Job, Training
from ltplugins.zoo.backbone import Backbone
from ltplugins.zoo.load import load_backbone

log = logging.getLogger(__name__)

# Where things lie and on what they run: not what the numbers depend on.
_NOT_IDENTITY = ("run", "output_dir", "accelerator", "devices", "overwrite", "pictures")
_NOT_OF_DATA = ("path", "num_workers", "max_pixels")


def segment(cfg: DictConfig) -> Path:
    """Train a segmentation on ``cfg.run``'s encoder, score it, and return the new folder.

    Keys: see :class:`SegmentConfig`. The same call again continues an interrupted stage and leaves
    a finished one as it is.

    Raises:
        UserError: keys that do not go together, no model, masks that do not fit their images or
            classes, an encoder that does not fit the decoder, a folder that holds something else.
    """
    host = prepare()
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("run is missing: ltplugins segment RUN, the folder of a finished run.")
    options = parse(SegmentConfig, OmegaConf.to_container(cfg, resolve=True), "")  # type: ignore[arg-type]
    import_smp()
    first = _open_first(options.run)
    if first is not None:
        data = on_the_split_of(first.cfg.data, options.data)
        options = dataclasses.replace(options, data=data)
    out = Path(options.output_dir or _beside(options))
    if not is_zoo(options.run) and out.resolve() == Path(options.run).resolve():
        raise UserError(f"output_dir is the run itself ({out}), which is never written to.")
    backbone = load_backbone(options.run, pretrained=options.weights == "run")
    masks = open_masks(options.data)
    training = Training(_training_config(options, backbone, out, masks), out, "segment")
    require_step(len(masks.train), options.batch_size, training.world_size)
    return training.start(_job(options, first, backbone, masks, training, host.label))


def _job(
    options: SegmentConfig,
    first: TrainedRun | None,
    backbone: Backbone,
    masks: MaskSet,
    training: Training,
    host: str,
) -> Job:
    """What is trained, on what, and what is written at its end."""
    out, is_random = training.run.path, options.weights == "random"
    pl.seed_everything(options.seed, workers=False, verbose=False)
    size = options.views.crop or (options.data.tile if options.data.is_land else FILE_CROP)
    net = build_network(backbone, options.decoder, masks.num_classes, size, random=is_random)
    model = Segmenter(net, options, torch.from_numpy(masks.counts.pixels))
    normalise = Normalise(backbone.transform.mean, backbone.transform.std)
    plain = PlainView(normalise)
    view = TrainView(options.views, options.data.is_land, normalise, options.seed)
    val = masks.val if options.val_every else None
    workers = options.data.num_workers
    weights = "random" if is_random else weights_hash(backbone.net)
    origin = _origin(options, first, backbone, weights, masks, host)

    def conclude() -> Mapping[str, Any]:
        _show(conclude_segmentation(model, masks, plain, str(origin.label), weights, out), out)
        return {}

    return Job(
        model=model,
        data=MaskModule(masks.train, val, view, plain, options.batch_size, workers),
        config=_stored_config(training.cfg, options),
        identity=_identity(options, weights, backbone, masks, training.world_size),
        origin=origin,
        announce=lambda: log.info(
            "%s: %s training images, %s test images, %d classes, new run folder %s",
            origin.label, f"{len(masks.train):,}", f"{len(masks.test):,}", masks.num_classes, out,
        ),
        conclude=conclude,
    )  # fmt: skip


def _open_first(path: str) -> TrainedRun | None:
    """The run behind an encoder; None of an exported folder, or of a name.

    Raises:
        UserError: a run that is not finished, or whose checkpoint is gone.
    """
    is_run = is_zoo(path) or Path(path).is_file() or (Path(path) / RUN_FILE).exists()
    return open_finished(path, "segment") if is_run else None


def _beside(options: SegmentConfig) -> str:
    """The folder for a segmentation, beside what its encoder is of."""
    base = Path(options.run)
    base = base if base.exists() else Path("runs/segment") / options.run.removeprefix(PREFIX)
    random = "random-" * (options.weights == "random")
    return f"{name_of(base)}-{random}{options.decoder.name}"


def _training_config(
    options: SegmentConfig, backbone: Backbone, out: Path, masks: MaskSet
) -> RunConfig:
    """What the skeleton of all trainings reads; images are not among it."""
    plain: dict[str, Any] = {
        "method": "segment",
        "name": out.name,
        "output_dir": str(out),
        "max_epochs": options.epochs,
        "seed": options.seed,
        "overwrite": options.overwrite,
        "backbone": {"name": backbone.architecture.name},
        "data": {"dataset": "land_pack"},  # of images without masks: nothing reads it here
        "augmentations": [{"crop_size": backbone.size, "num_crops": 1}],
        "optimizer": {"name": "adamw", "batch_size": options.batch_size, "lr": options.lr},
        "accelerator": options.accelerator,
        "devices": options.devices,
        "auto_resume": {"enabled": True},
        "checkpoint": {"enabled": True, "frequency": 1, "keep_prev": False},
        "check_val_every_n_epoch": max(1, options.val_every),
    }
    if masks.val is None or not options.val_every:
        plain["limit_val_batches"] = 0
    # Some encoders have layers that a decoder does not use, such as a ViT's last norm.
    plain["strategy"] = "ddp_find_unused_parameters_true"
    if options.precision is not None:
        plain["precision"] = options.precision
    return resolve(plain)


def _stored_config(config: RunConfig, options: SegmentConfig) -> DictConfig:
    """What the folder keeps: the options, under a block that no other config has."""
    given = {k: v for k, v in dataclasses.asdict(options).items() if k != "overwrite"}
    head = {"method": config.method, "name": config.name, "seed": config.seed}
    return OmegaConf.create({**head, "output_dir": config.output_dir, "segment": given})


def _origin(
    options: SegmentConfig,
    first: TrainedRun | None,
    backbone: Backbone,
    weights: str,
    masks: MaskSet,
    host: str,
) -> Origin:
    name = backbone.architecture.name
    known = backbone.provenance.origin
    label = f"random {name}"
    if options.weights == "run":
        label = name if known is None else known.label or known.method
    stage_1 = None
    if first is not None and options.weights == "run":
        stage_1 = FirstStage(str(options.run), first.epoch, weights)
    split = SplitFacts(
        masks.description,
        masks.fingerprint(),
        len(masks.train),
        [int(n) for n in masks.counts.images],
        list(masks.class_names),
    )
    return Origin(
        method="segment", host=host, split=split, label=f"{label}+{options.decoder.name}",
        stage_1=stage_1,
    )  # fmt: skip


def _identity(
    options: SegmentConfig, weights: str, backbone: Backbone, masks: MaskSet, world_size: int
) -> dict[str, Any]:
    chosen = {k: v for k, v in dataclasses.asdict(options).items() if k not in _NOT_IDENTITY}
    chosen["data"] = {k: v for k, v in chosen["data"].items() if k not in _NOT_OF_DATA}
    return {
        "stage": "segment",
        "segment": chosen,
        "encoder": backbone.architecture.name,
        "encoder_weights": weights,
        "mean": list(backbone.transform.mean),
        "std": list(backbone.transform.std),
        "masks": masks.fingerprint(),
        "world_size": world_size,
    }


def _show(results: SegmentResults, out: Path) -> None:
    def percent(value: float | None) -> str:
        return "n/a" if value is None else f"{100 * value:.1f}"

    console = make_console()
    groups = "; ".join(
        f"by {by}: " + ", ".join(f"{name} {percent(v)}" for name, v in found.items())
        for by, found in results.groups.items()
    )
    console.print(
        f"{results.method}: mIoU {percent(results.miou)}, pixel accuracy "
        f"{percent(results.accuracy)}; IoU {groups} (thirds of the training counts)",
        highlight=False,
    )
    for note in results.notes:
        console.print(f"note: {note}", highlight=False)
    console.print(f"written: {out / 'results.json'}", highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``scripts/segment.py`` and ``ltplugins segment``; see :func:`launch`."""
    words = [quote_run(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    launch(segment, "segment", lambda _: typed_keys(SegmentConfig), words)
