# SPDX-License-Identifier: MIT
"""The keys of ``ltplugins finetune``, and which of them do not go together."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ltplugins.config.sections import BackboneConfig, Devices
from ltplugins.core.ranges import Above, AtLeast, Below, Between, Length, Seed, UpTo, Within
from ltplugins.core.schema import Section

Mode = Literal["linear", "full", "lp_ft", "lora"]
Head = Literal["linear", "cosine", "crt", "tau", "lws"]
LossName = Literal["cross_entropy", "logit_adjusted", "ldam", "focal"]
REBALANCED = ("crt", "tau", "lws")  # heads that are made of a linear one after the training


@dataclass(frozen=True)
class LossConfig(Section):
    """``loss``; a bare name, ``loss=ldam``, is a block of that name."""

    name: LossName = "cross_entropy"
    tau: Annotated[float, Above(0)] = 1.0  # of logit_adjusted; 1 is the balanced softmax
    gamma: Annotated[float, AtLeast(0)] = 2.0  # of focal
    margin: Annotated[float, Above(0)] = 0.5  # of ldam: the rarest class's, in cosines
    # Of ldam: the share of the epochs after which classes are weighted (1: never), and how much.
    reweight_from: Annotated[float, Within(0, 1)] = 0.8
    beta: Annotated[float, Below(0, 1)] = 0.9999

    @classmethod
    def from_scalar(cls, value: str) -> "LossConfig":
        """Make the block that a bare name stands for."""
        return cls(name=value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class LoraConfig(Section):
    """``lora``: of mode lora."""

    rank: Annotated[int, AtLeast(1)] = 8
    alpha: Annotated[int, AtLeast(1)] = 16
    dropout: Annotated[float, Below(0, 1)] = 0.0
    # Names of the linear layers that are adapted.
    layers: Annotated[list[str], Length(1, float("inf"))] = field(default_factory=lambda: ["qkv"])


@dataclass(frozen=True)
class MixConfig(Section):
    """``mix``: timm's Mixup and CutMix; 0 is off, with both a batch is cut or mixed by chance."""

    mixup: Annotated[float, AtLeast(0)] = 0.0  # alpha of the Beta distribution
    cutmix: Annotated[float, AtLeast(0)] = 0.0
    prob: Annotated[float, Within(0, 1)] = 1.0  # of a batch

    @property
    def is_on(self) -> bool:
        """Whether any image is mixed."""
        return self.prob > 0 and (self.mixup > 0 or self.cutmix > 0)


@dataclass(frozen=True)
class FinetuneConfig(Section):
    """``ltplugins finetune``: its keys. Rates are for 256 images, as everywhere."""

    run: str | None = None  # a run folder or a checkpoint; null: data, augmentations, backbone
    output_dir: str | None = None  # null: that folder's name, mode, head and loss
    mode: Mode = "lp_ft"
    weights: Literal["run", "random"] = "run"  # random: the run's network and data, from scratch
    backbone: BackboneConfig | None = None  # another network than the run's, on its data
    data: dict[str, Any] = field(default_factory=dict)  # where the run's lie now, or a whole block
    augmentations: list[Any] | None = None  # null: the run's, the first block of it
    head: Head = "linear"
    loss: LossConfig = field(default_factory=LossConfig)
    post_hoc_tau: Annotated[float, AtLeast(0)] = 0.0  # logit adjustment after the training; 0: none
    scale: Annotated[float, Above(0)] = 30.0  # of the cosines of head cosine
    sampler: Literal["shuffle", "class_aware"] = "shuffle"
    epochs: Annotated[int, AtLeast(1)] = 30  # of lp_ft: after the probe's
    probe_epochs: Annotated[int, AtLeast(1)] = 10  # of lp_ft
    batch_size: Annotated[int, AtLeast(1)] = 128  # of each process
    optimizer: str = "sgd"
    lr: Annotated[float, Above(0)] = 0.05  # where the backbone is trained
    probe_lr: Annotated[float, Above(0)] = 0.5  # where it is frozen
    weight_decay: Annotated[float, AtLeast(0)] = 1e-4
    layer_decay: Annotated[float, UpTo(0, 1)] = (
        1.0  # of the rates, from the head to the first layer
    )
    warmup_epochs: Annotated[float, AtLeast(0)] = 1.0
    warmup_start_lr: Annotated[float, AtLeast(0)] = 0.0
    min_lr: Annotated[float, AtLeast(0)] = 0.0
    freeze_bn: bool = False  # statistics of BatchNorms stay those of the start
    mix: MixConfig = field(default_factory=MixConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    validation: Annotated[float, Between(0, 1)] = 0.1  # share of the training images, by class
    patience: Annotated[int, AtLeast(1)] | None = None  # epochs without a better validation
    refit_epochs: Annotated[int, AtLeast(1)] = 10  # of crt and lws
    refit_lr: Annotated[float, Above(0)] = 0.1
    seed: Seed | None = None  # null: the run's
    accelerator: str | None = None  # null: the run's own
    devices: Devices = None
    overwrite: bool = False  # replace what is in output_dir

    def refusals(self) -> Iterator[tuple[str, str]]:
        """What would adjust twice, or has no meaning together."""
        yield from self._twice()
        if self.mode in ("linear", "lora") and self.layer_decay < 1:
            yield "layer_decay", f"1 with mode={self.mode}, which trains no layer of the backbone"
        if self.loss.name == "ldam" and self.head != "cosine":
            yield "head", "cosine with loss=ldam, whose margins are between cosines"
        if self.mix.is_on and self.loss.name in ("ldam", "focal"):
            yield "mix", f"none with loss={self.loss.name}, which takes one class an image"
        if self.mix.is_on and self.batch_size % 2:
            yield "batch_size", "an even number with mix, which pairs the images of a batch"
        for key in ("min_lr", "warmup_start_lr"):
            if getattr(self, key) > self.lr:
                yield key, f"a number of at most lr ({self.lr:g})"

    def _twice(self) -> Iterator[tuple[str, str]]:
        """The class prior may be taken out of a classifier once."""
        adjusts = {
            "loss=logit_adjusted": self.loss.name == "logit_adjusted",
            "loss=ldam": self.loss.name == "ldam",
            f"head={self.head}": self.head in REBALANCED,
            "sampler=class_aware": self.sampler == "class_aware",
        }
        by = [what for what, is_so in adjusts.items() if is_so]
        if self.post_hoc_tau > 0 and by:
            yield "post_hoc_tau", f"0 with {by[0]}, which balances the classifier already"
        by_loss = {f"loss={name}": self.loss.name == name for name in ("logit_adjusted", "ldam")}
        by_head = {f"head={name}": self.head == name for name in ("tau", "lws")}
        for what, is_so in (by_loss | by_head).items():
            if is_so and self.sampler == "class_aware":
                yield "sampler", f"shuffle with {what}, which balances already"
        if self.head in ("tau", "lws") and self.loss.name != "cross_entropy":
            yield (
                "head",
                f"linear, cosine or crt with loss={self.loss.name}, which balances already",
            )
