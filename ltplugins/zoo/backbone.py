# SPDX-License-Identifier: MIT
"""A backbone to use: a frozen network with its preprocessing, and what it was made of.

Legend: B batch, S pixels a side, D width of the features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ltplugins.core.errors import UserError
from ltplugins.data.augment.deterministic import EvalTransform
from ltplugins.host.builtin.backbones import RESNETS, TIMM_ALIASES
from ltplugins.runs.facts import Origin

_SMALL = (
    "has the small stem, which timm's ResNets do not have. Export it with --onnx{torchvision}, or "
    "train with backbone.small_stem=false."
)


@dataclass(frozen=True)
class Architecture:
    """What a backbone is built of.

    Attributes:
        name: as ``backbone.name`` has it: torchvision's ResNets, timm's everything else.
        kwargs: of its constructor.
        small_stem: whether it is a ResNet with the stem for small images.
        is_timm: whether ``resnet18`` means timm's, as an entry has it.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    small_stem: bool = False
    is_timm: bool = False

    @property
    def torchvision(self) -> str:
        """The name that torchvision builds it by.

        Raises:
            UserError: it is not of torchvision's.
        """
        if self.is_timm or self.name not in RESNETS:
            raise UserError(
                f"--torchvision: expected a backbone of torchvision's ({', '.join(RESNETS)}), got "
                f"{self.name}, which is timm's. Leave --torchvision out, or take --onnx."
            )
        return self.name

    @property
    def timm(self) -> str:
        """The name that timm builds it by; torchvision's ResNets have equal keys there.

        Raises:
            UserError: timm has no such network.
        """
        if self.small_stem:
            is_known = not self.is_timm and self.name in RESNETS
            what = _SMALL.format(torchvision=" or --torchvision" * is_known)
            raise UserError(f"{self.name} {what}")
        if not self.is_timm and self.name in TIMM_ALIASES:
            return TIMM_ALIASES[self.name].__name__
        return self.name


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from, as far as it is known.

    Attributes:
        label: what a reader calls it by.
        dataset: ``data.dataset`` of the training.
        seed: of the run.
        epochs: that it was trained.
        origin: method, host and split.
    """

    label: str
    dataset: str | None = None
    seed: int | None = None
    epochs: int | None = None
    origin: Origin | None = None


class Backbone(nn.Module):
    """Float[B 3 S S], as ``transform`` makes them, to Float[B D]; frozen and in eval mode.

    Attributes:
        net: the network itself, for those that train it on.
        transform: from one picture of any kind to Float[3 S S], as the evaluation sees it.
        num_features: D.
        skipped: keys of the file that the network does not have: heads, twins, queues.
        architecture, provenance: what it is and where it comes from.
    """

    def __init__(
        self,
        net: nn.Module,
        transform: EvalTransform,
        num_features: int,
        architecture: Architecture,
        provenance: Provenance,
        skipped: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.net = net
        self.transform = transform
        self.num_features = num_features
        self.architecture, self.provenance = architecture, provenance
        self.skipped = list(skipped)
        self.eval().requires_grad_(False)

    @property
    def size(self) -> int:
        """S, that the transform gives."""
        return self.transform.size

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch."""
        return self.net(images).flatten(1)

    def noise(self, count: int) -> Tensor:
        """Images to compare two forms of it on: Float[count 3 S S], always the same ones."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, self.size, self.size, generator=generator)
