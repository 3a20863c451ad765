# SPDX-License-Identifier: MIT
"""The numbers that a file under scripts/pretrain trains with, off what is really built from it.

The backbone alone is replaced, by a linear layer of the same width. The trainer says one step an
epoch, two once OOD images have joined (officially on CIFAR-100-LT it is 20 and 39); optimizer and
schedule are the method's own and are stepped to the end of the run.
"""

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

from hydra import compose, initialize_config_dir
from torch import nn
from torchvision import transforms

import ltplugins
from ltplugins.config.resolve import resolve
from ltplugins.config.run import RunConfig
from ltplugins.data.augment.pil import view_transform
from ltplugins.data.augment.schema import AugmentationBlock, normalisation
from ltplugins.data.sources.records import RECORDS, DataRecord, custom_record
from ltplugins.host.build import build_model
from ltplugins.methods.bcl import VARIANTS
from ltplugins.methods.parts.durations import to_epochs
from ltplugins.methods.registry import METHODS, option_classes
from ltplugins.stages.blocks import config_blocks
from tests.kit.paths import ROOT

WIDTHS = {"resnet18": 512, "resnet50": 2048}
IMAGES, PLAIN, GROWN = 10_847, 1, 2
SETS = {
    "imagenet_lt": ("ImageNet-LT", 1000),
    "places_lt": ("Places-LT", 365),
    "inat2018": ("iNaturalist 2018", 8142),
}
DURATIONS = ("warmup", "ramp", "interval", "prior_interval", "t_max")
LAYERS = {nn.BatchNorm1d: "BN", nn.ReLU: "ReLU"}


class _Data:
    """What COLT asks of the data."""

    num_samples, num_ood = IMAGES, 300_000

    def batches_per_epoch(self, num_ood: int, world_size: int = 1) -> int:
        return GROWN if num_ood else PLAIN


class _Trainer:
    """What a method's optimizer and schedule ask of a trainer."""

    world_size, max_steps, accumulate_grad_batches, limit_train_batches = 1, -1, 1, 1.0

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs, self.datamodule = max_epochs, _Data()

    @property
    def estimated_stepping_batches(self) -> int:
        return PLAIN * self.max_epochs


def ours(name: str, epochs: tuple[int, ...]) -> dict[str, Any]:
    """The file's numbers by the names of settings.yaml; its rates after so many epochs."""
    config = _config(name)
    model = _model(config)
    rates, interval = _rates(model, config, epochs)
    optimizer = config.optimizer
    return {
        "data": _data(name, config),
        "backbone": config.backbone.name,
        "epochs": config.max_epochs,
        # Images of a step; of MTTV pairs, which our batch size counts as two.
        "batch": optimizer.batch_size // (2 if config.method == "mttv" else 1),
        "weight_decay": optimizer.weight_decay,
        "momentum": optimizer.kwargs["momentum"],
        "rates": rates,
        "rate_per": interval,
        "temperature": _temperature(config),
        "views": [_view(b, _record(config)) for b in config.augmentations],
        "statistics": [list(x) for x in _statistics(config)],
        "head": _head(model),
        "batchnorm": _batchnorm(config),
        "last_batch": "dropped" if config.data.drop_last else "kept",
        **_options(config),
    }


def _config(name: str) -> RunConfig:
    folder, _, stem = name.partition("/")
    with initialize_config_dir(str(ROOT / "scripts/pretrain" / folder), version_base="1.2"):
        return resolve(compose(stem), config_blocks)


def _data(name: str, config: RunConfig) -> str:
    block = config.data
    if block.dataset != "custom":
        imbalance = block.imbalance
        assert imbalance is not None and (imbalance.kind, imbalance.split_seed) == ("exp", 0)
        return f"CIFAR-{block.dataset[5:]}-LT, factor {imbalance.factor:g}, LDAM's split"
    return SETS[name.partition("/")[0]][0]


def _record(config: RunConfig) -> DataRecord:
    return RECORDS.get(config.data.dataset) or custom_record(1000)


def _model(config: RunConfig) -> Any:
    """The host's method over a linear layer in the backbone's place."""
    ltplugins.register()

    def build(name: str, kwargs: Any) -> tuple[nn.Module, int]:
        width = WIDTHS[name]
        return nn.Sequential(nn.Flatten(), nn.Linear(4, width)), width

    config = config.with_counts(IMAGES, _record(config).num_classes)
    teacher = {"teacher": None, "distill_weight": 0.0}
    if config.host.method_kwargs.get("teacher"):  # a run that is not there
        config.host.method_kwargs.update(teacher)
    config.host.backbone.small_stem = False
    builtin = "ltplugins.host.builtin"
    with (
        patch(f"{builtin}.base.build_backbone", build),
        patch(f"{builtin}.momentum.build_backbone", build),
    ):
        return build_model(config.host, 1, False)


def _rates(model: Any, config: RunConfig, epochs: tuple[int, ...]) -> tuple[dict[int, float], str]:
    """The backbone's rate after so many epochs, and whether it moves by step or by epoch."""
    model._trainer = _Trainer(config.max_epochs)
    colt = hasattr(model, "colt")
    if colt:
        model.setup("fit")
    (optimizer,), (entry,) = model.configure_optimizers()
    if not isinstance(entry, Mapping):  # Lightning's other spelling: once an epoch
        entry = {"scheduler": entry, "interval": "epoch"}
    optimizer.step()
    rates = {}
    for epoch in range(config.max_epochs):
        if epoch in epochs:
            rates[epoch] = optimizer.param_groups[0]["lr"]
        grown = colt and epoch >= model.colt_first
        for _ in range(1 if entry["interval"] == "epoch" else GROWN if grown else PLAIN):
            entry["scheduler"].step()
    return rates, entry["interval"]


def _temperature(config: RunConfig) -> Any:
    if config.host.method_kwargs.get("contrast_weight") == 0:
        return "none"
    return config.host.method_kwargs.get("temperature")


def _view(block: AugmentationBlock, record: DataRecord) -> dict[str, Any]:
    jitter, blur, rrc = block.color_jitter, block.gaussian_blur, block.rrc
    plain = not rrc.enabled and block.crop_size == record.image_size <= 64
    steps = [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]
    return {
        "crop": block.crop_size,
        "scale": [rrc.crop_min_scale, rrc.crop_max_scale] if rrc.enabled else "whole image",
        "resize": "none" if plain else _resize(block, record),
        "jitter": [jitter.prob, *steps] if jitter.prob else [0.0] * 5,
        "grey": block.grayscale.prob,
        "blur": [blur.prob, *blur.sigma] if blur.prob else [0.0] * 3,
        "flip": block.horizontal_flip.prob,
    }


def _resize(block: AugmentationBlock, record: DataRecord) -> str:
    """The interpolation of the transform that is built."""
    kinds = (transforms.RandomResizedCrop, transforms.Resize)
    chain = view_transform(block, record)._random.transforms
    return next(step.interpolation.value for step in chain if isinstance(step, kinds))


def _statistics(config: RunConfig) -> Any:
    return normalisation(config.augmentations[0], _record(config))


def _head(model: Any) -> str:
    projector = getattr(model, "projector", None)
    if projector is None:
        return "none"
    return ", ".join(
        f"Linear {x.out_features}{'' if x.bias is not None else ' (no bias)'}"
        if isinstance(x, nn.Linear)
        else LAYERS[type(x)]
        for x in projector.modules()
        if not isinstance(x, nn.Sequential)
    )


def _batchnorm(config: RunConfig) -> str:
    if config.method != "gml":
        blocks = [x for x in config.host.method_kwargs.values() if isinstance(x, Mapping)]
        joint = any(block.get("joint_views", False) for block in blocks)
        return "both views" if joint else "each view"
    views = sum(block.num_crops for block in config.augmentations)
    return "one view" if views == 1 else "classifier's view and query together"


def _options(config: RunConfig) -> dict[str, Any]:
    """The method's own options, by block: {"gh": {"warmup": 500, ...}}."""
    kwargs = config.host.method_kwargs
    found: dict[str, Any] = {}
    for path in option_classes(config.method):
        block = kwargs if path == "method_kwargs" else kwargs[path.rpartition(".")[2]]
        name = config.method if path == "method_kwargs" else path.rpartition(".")[2]
        values = {str(k): _plain(k, v, config.max_epochs) for k, v in block.items()}
        found[name] = values
    if "bcl" in found:
        found["bcl"] |= VARIANTS[found["bcl"]["variant"]]
    if config.method in METHODS:
        found[config.method]["ema"] = config.momentum.base_tau
    if config.method == "gml":
        found["gml"]["teacher"] = "a run" if kwargs.teacher else "none"
    if config.method == "focal":
        return {"gamma": found["focal"]["gamma"]}
    return found


def _plain(key: str, value: Any, max_epochs: int) -> Any:
    """Durations in epochs; TS has an ``interval`` that is none."""
    is_duration = key in DURATIONS and (not isinstance(value, str) or value.endswith("%"))
    return round(to_epochs(value, max_epochs), 6) if is_duration else value
