# SPDX-License-Identifier: MIT
"""solo-learn's own mains under our data: ``data.imbalance``, samplers, engines, OOD pools, formats.

``main_pretrain.py`` builds its loaders by functions of ``solo.data`` that know none of our keys and
leave them out without a word. While its script runs, these functions and Lightning's Trainer are
replaced: where a config asks for anything of ours, the run trains and validates on an
:class:`LTDataModule`; where it does not, all is solo-learn's. Its other mains build no training set
of ours, and refuse these keys.

The network stays what solo-learn builds; ``backbone.small_stem`` changes its stem as under our
mains.
"""

import dataclasses
import functools
import importlib
import importlib.util
import logging
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf

from ltplugins.config.data import training_set
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.core.errors import UserError
from ltplugins.data.datamodule import LTDataModule, build_datamodule
from ltplugins.data.schema import Dataset
from ltplugins.data.sources.land.options import LandConfig
from ltplugins.host.stem import apply_stem, has_stem, is_small

log = logging.getLogger(__name__)

Guard = Callable[[Callable[[], Any]], Any]

_DATASETS = ("cifar10", "cifar100", "stl10", "imagenet", "imagenet100", "custom")
_FORMATS = ("image_folder", "dali", "h5")
_DATA_KEYS = {
    "dataset",
    "train_path",
    "val_path",
    "format",
    "num_workers",
    "no_labels",
    "fraction",
    "num_classes",
    "num_samples",
    "num_large_crops",
    "num_small_crops",
}
# What says which images are trained on; its auto-resume compares the set's name alone.
_SAME_DATA = (
    *("train_path", "format", "root", "fraction", "imbalance", "ood", "sampler"),
    *(field.name for field in dataclasses.fields(LandConfig)),
)


def asked_of_ours(cfg: DictConfig) -> list[str]:
    """The keys of ``data`` and ``augmentations`` that solo-learn would leave out in silence.

    >>> asked_of_ours(OmegaConf.create({"data": {"dataset": "custom", "engine": "dali"}}))
    ['data.engine']
    """
    data = _plain(cfg, "data") or {}
    keys = [f"data.{k}" for k, v in data.items() if k not in _DATA_KEYS and v is not None]
    if data.get("dataset") in set(typing.get_args(Dataset)) - set(_DATASETS):
        keys.append(f"data.dataset={data['dataset']}")
    if data.get("format", "image_folder") not in _FORMATS:
        keys.append(f"data.format={data['format']}")
    for i, block in enumerate(_plain(cfg, "augmentations") or []):
        if isinstance(block, Mapping):
            blur = block.get("gaussian_blur") or {}
            ours = ("vertical_flip", "quarter_turn", "randaugment")
            keys += [f"augmentations[{i}].{step}" for step in ours if block.get(step)]
            keys += [f"augmentations[{i}].gaussian_blur.sigma"] * ("sigma" in blur)
    return keys


@contextmanager
def our_data(guard: Guard, module: str | None = None) -> Iterator[None]:
    """Put our data in the place of solo-learn's, in the block, for configs that ask for it.

    Args:
        guard: runs what may log or raise a UserError, and shows it.
        module: that further processes of a DDP run are started by, ``python -m MODULE SCRIPT``.
    """
    main = _Main(guard, module)
    pretraining = "solo.data.pretrain_dataloader"
    replaced: list[tuple[str, str, Callable[..., Any]]] = [
        ("solo.args.pretrain", "parse_cfg", main.parse),
        ("solo.args.linear", "parse_cfg", main.refuse),
        (pretraining, "prepare_datasets", main.instead(None)),
        (pretraining, "prepare_dataloader", main.instead(None)),
        (pretraining, "build_transform_pipeline", main.instead(None)),
        ("solo.data.classification_dataloader", "prepare_data", main.instead((None, None))),
    ]
    resumer = importlib.import_module("solo.utils.auto_resumer").AutoResumer
    matched = [*resumer.SHOULD_MATCH, *(f"data.{key}" for key in _SAME_DATA)]
    with ExitStack() as stack:
        for module, name, replace in replaced:
            owner = importlib.import_module(module)
            stack.enter_context(patch.object(owner, name, replace(getattr(owner, name))))
        stack.enter_context(patch.object(resumer, "SHOULD_MATCH", matched))
        stack.enter_context(patch.object(pl, "Trainer", main.trainer()))
        yield


class _Main:
    """One script's run: its config as types and our data, once it has asked for them."""

    def __init__(self, guard: Guard, started_by: str | None) -> None:
        self.guard, self.started_by = guard, started_by
        self.config: RunConfig | None = None
        self.module: LTDataModule | None = None

    def parse(self, solos: Callable[[DictConfig], DictConfig]) -> Callable[..., DictConfig]:
        """solo-learn's ``parse_cfg``, which builds our data where they are asked for."""

        def parse_cfg(cfg: DictConfig) -> DictConfig:
            if self.started_by is not None:
                _start_ranks_by(self.started_by)
            self.guard(lambda: _require_counted(cfg))
            keys = asked_of_ours(cfg)
            if not keys:
                return solos(cfg)
            self.guard(lambda: self._build(cfg, keys))
            assert self.module is not None
            args: Any = importlib.import_module("solo.args.pretrain")
            training, name = self.module.training, cfg.data.dataset
            if cfg.data.get("format") == "dali":  # as ``parse_data_config`` reads it
                cfg.data.update(format="image_folder", engine="dali")
            with (
                patch.object(args, "_SUPPORTED_DATASETS", [name]),
                patch.object(args, "_N_CLASSES_PER_DATASET", {name: training.num_classes}),
            ):
                cfg = solos(cfg)
            cfg.data.num_samples = training.num_samples
            return cfg

        return parse_cfg

    def _build(self, cfg: DictConfig, keys: list[str]) -> None:
        log.info("the data are ltplugins' under solo-learn's main, for %s", ", ".join(keys))
        self.config = resolve(cfg)
        self.module = build_datamodule(training_set(self.config), self.config.seed)

    def refuse(self, solos: Callable[[DictConfig], DictConfig]) -> Callable[..., DictConfig]:
        """The ``parse_cfg`` of a main that has no training set of ours."""

        def parse_cfg(cfg: DictConfig) -> DictConfig:
            self.guard(lambda: _require_counted(cfg))
            keys = asked_of_ours(cfg)
            if keys:
                self.guard(lambda: _refuse(keys))
            return solos(cfg)

        return parse_cfg

    def instead(self, value: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """For a function of solo-learn's: give ``value`` where our data are used."""

        def replace(solos: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(solos)
            def function(*args: Any, **kwargs: Any) -> Any:
                return value if self.module is not None else solos(*args, **kwargs)

            return function

        return replace

    def trainer(self) -> type[pl.Trainer]:
        """Lightning's Trainer, which takes our data where they are asked for."""
        main = self

        class Trainer(pl.Trainer):
            # The script reads its signature.
            @functools.wraps(pl.Trainer.__init__)  # type: ignore[misc]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                if main.module is not None:
                    kwargs["use_distributed_sampler"] = False  # our samplers shard themselves
                super().__init__(*args, **kwargs)

            def fit(self, model: Any, *args: Any, **kwargs: Any) -> None:
                if main.module is None:
                    super().fit(model, *args, **kwargs)
                    return
                main.guard(lambda: main.set_stem(model))
                checkpoint = kwargs.get("ckpt_path")
                fit = super().fit
                main.guard(lambda: fit(model, datamodule=main.module, ckpt_path=checkpoint))

        return Trainer

    def set_stem(self, model: Any) -> None:
        """Give the network the stem of ``backbone.small_stem``; without it, say what it has."""
        assert self.config is not None and self.module is not None
        asked, record = self.config.backbone.small_stem, self.module.training.record
        if asked is not None:
            apply_stem(model, asked)
            if not self.config.performance.disable_channel_last:
                model.to(memory_format=torch.channels_last)
        elif has_stem(model.backbone) and is_small(model.backbone) != record.small_stem:
            log.warning(
                "solo-learn chooses the stem by the data set's name: it is the %s one, for images "
                "of %d pixels. backbone.small_stem=%s takes the other.",
                "large" if record.small_stem else "small",
                record.image_size,
                str(record.small_stem).lower(),
            )


def _refuse(keys: list[str]) -> None:
    raise UserError(
        f"{', '.join(keys)}: solo-learn's main has no such data and would leave it out. Remove it, "
        f"or use ltplugins evaluate RUN, which knows a run's own split."
    )


def _require_counted(cfg: DictConfig) -> None:
    """Refuse a number of devices: the scripts take the length of what stands there."""
    devices = cfg.get("devices")
    if isinstance(devices, int):
        raise UserError(
            f"devices: expected the list of GPUs, got {devices}: solo-learn's mains count its "
            f"entries. Set devices={list(range(max(devices, 1)))}, or devices=\"'1'\" on a CPU."
        )


def _start_ranks_by(module: str) -> None:
    """Let Lightning start the further processes of a DDP run by ``module``, as this one was.

    It repeats the command of ``__main__``, which is the script now: without our names and data.
    """
    main = sys.modules["__main__"]
    if main.__spec__ is None:
        main.__spec__ = importlib.util.find_spec(module)
        sys.argv = [module, *sys.argv]


def _plain(cfg: DictConfig, key: str) -> Any:
    block = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(block, resolve=True) if OmegaConf.is_config(block) else block
