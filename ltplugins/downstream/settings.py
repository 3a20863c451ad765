# SPDX-License-Identifier: MIT
"""From a run and the keys of a fine-tuning to the config that it trains by."""

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltplugins.config.data import DataPaths
from ltplugins.config.listeners import leave_named_loggers
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.core.schema import parse
from ltplugins.data.schema import parse_data_config
from ltplugins.downstream.finetune import total_epochs
from ltplugins.downstream.options import FinetuneConfig
from ltplugins.runs.checkpoint import TrainedRun
from ltplugins.runs.places import name_of

# Of the first run: its limits, what it was watched by, and how often it was validated.
_NOT_KEPT: dict[str, Any] = {
    "max_steps": -1,
    "max_time": None,
    "fast_dev_run": False,
    "callbacks": None,
    "accumulate_grad_batches": 1,
    "resume_from_checkpoint": None,
    "knn_eval": {"enabled": False},
    "limit_val_batches": None,
    "val_check_interval": None,
    "check_val_every_n_epoch": 1,
    "auto_resume": {"enabled": True},
    "checkpoint": {"enabled": True, "frequency": 1, "keep_prev": False},
}


def finetune_config(first: TrainedRun | None, options: FinetuneConfig) -> RunConfig:
    """The run's data and machine, or those of the options; this stage's length; one view."""
    cfg = _bare_config(options) if first is None else first.cfg.host.copy()
    _set_data(cfg, first, options)
    views: Any = options.augmentations or OmegaConf.to_container(cfg.augmentations)
    cfg.augmentations = [{**views[0], "num_crops": 1}]
    if options.backbone is not None:
        cfg.backbone = dataclasses.asdict(options.backbone)
    elif options.weights == "random":
        cfg.backbone.pretrained = False
    cfg.optimizer.batch_size = options.batch_size
    cfg.update(_NOT_KEPT)
    leave_named_loggers(cfg)
    cfg.update(max_epochs=total_epochs(options), overwrite=options.overwrite)
    cfg.seed = cfg.get("seed", 0) if options.seed is None else options.seed
    # Of other images than the run's, and without a run, the images' name.
    is_own = first is not None and "dataset" not in options.data
    name = cfg.name if is_own else parse_data_config(options.data).name
    cfg.name = f"{name}-{options.mode}"
    cfg.output_dir = _folder(cfg, first, options)
    cfg.update({k: v for k in ("accelerator", "devices") if (v := getattr(options, k)) is not None})
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


def _folder(cfg: DictConfig, first: TrainedRun | None, options: FinetuneConfig) -> str:
    if options.output_dir:
        return options.output_dir
    words: list[str] = [options.mode]
    words += [] if options.head == "linear" else [options.head]
    words += [] if options.loss.name == "cross_entropy" else [options.loss.name]
    if options.run is None:
        return "-".join([f"runs/finetune/{cfg.backbone.name}-{cfg.data.dataset}", *words])
    start: list[str] = [] if options.weights == "run" else [options.weights]
    start = start if options.backbone is None else [options.backbone.name]
    base = first.path if first is not None and first.is_entry else options.run
    return "-".join([name_of(base), *start, *words])
