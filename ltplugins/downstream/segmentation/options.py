# SPDX-License-Identifier: MIT
"""The keys of ``ltplugins segment``, and which of them do not go together."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ltplugins.config.sections import Devices
from ltplugins.core.errors import unknown
from ltplugins.core.ranges import Above, AtLeast, Length, Note, Seed, UpTo, Within
from ltplugins.core.schema import Section
from ltplugins.data.schema import MaxPixels
from ltplugins.data.sources.land.options import LandConfig, misfits
from ltplugins.data.sources.pictures import MAX_PIXELS

DecoderName = Literal["unet", "fpn", "deeplabv3plus", "upernet", "segformer", "dpt", "linear"]
Format = Literal["land_pack", "folder", "voc", "cityscapes", "ade20k"]
Weight = Annotated[float, AtLeast(0)]
Share = Annotated[float, Within(0, 1)]
IGNORE = 255  # of a mask: no class, neither learned from nor scored
LOSSES = ("ce", "adjusted", "dice", "lovasz")
_LAND_ALONE = ("tile", "stride", "least_land", "block", "folds", "fold")


@dataclass(frozen=True)
class DecoderConfig(Section):
    """``decoder``; a bare name, ``decoder=fpn``, is a block of that name.

    Attributes:
        name: of segmentation_models_pytorch's; ``linear`` is one layer on the last features.
        kwargs: of its constructor, such as ``{decoder_channels: [64, 32, 16, 16, 8]}``.
    """

    name: DecoderName = "unet"
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_scalar(cls, value: str) -> "DecoderConfig":
        """Make the block that a bare name stands for."""
        return cls(name=value)  # type: ignore[arg-type]

    def refusals(self) -> Iterator[tuple[str, str]]:
        """Arguments that the stage gives itself."""
        ours = sorted(set(self.kwargs) & {"classes", "in_channels", "activation", "aux_params"})
        ours += sorted(key for key in self.kwargs if key.startswith("encoder_"))
        if ours:
            yield "kwargs", f"arguments of the decoder alone, without {ours[0]}"
        if self.name == "linear" and self.kwargs:
            yield "kwargs", "none with decoder=linear"


@dataclass(frozen=True)
class MaskData(Section):
    """``data``: images with masks.

    Attributes:
        format: ``land_pack`` lies in the package; the others are read from ``path``.
        path: of the set's folder.
        num_classes: of ``folder``; null = the largest label of the training masks and one.
        ignore: label of ``folder``'s masks that is no class.
        num_workers: processes that decode and augment.
        max_pixels: a file of more is not decoded.
        tile, stride, least_land: pixels a side of land_pack's crops, from one crop to the next
            (null: half a crop), and the share of land in each.
        block, folds, fold: its spatial split; null = those of the run, where it was trained on
            land_pack too, so that no pixel of the test part was seen.
    """

    format: Format = "land_pack"
    path: str | None = None
    num_classes: Annotated[int, Within(2, IGNORE)] | None = None
    ignore: Annotated[int, Within(0, IGNORE)] = IGNORE
    num_workers: Annotated[int, AtLeast(0)] = 0
    max_pixels: MaxPixels = MAX_PIXELS
    tile: Annotated[int, AtLeast(32)] = 64
    stride: Annotated[int, AtLeast(1)] | None = None
    least_land: Share = 0.3
    block: Annotated[int, Within(1, 180), Note("degrees")] | None = None
    folds: Annotated[int, AtLeast(3)] | None = None
    fold: Annotated[int, AtLeast(0)] | None = None

    @property
    def is_land(self) -> bool:
        """Whether the images lie in the package."""
        return self.format == "land_pack"

    def refusals(self) -> Iterator[tuple[str, str]]:
        """Keys of another format than the one that is given."""
        if self.is_land and self.path is not None:
            yield "path", "nothing, for land_pack brings its own images"
        if not self.is_land and self.path is None:
            yield "path", f"the folder of a set of format {self.format}"
        if self.is_land:
            keys = ("tile", "stride", "block", "folds", "fold")
            given = {key: getattr(self, key) for key in keys if getattr(self, key) is not None}
            yield from misfits({**vars(LandConfig()), **given})
        for key in () if self.is_land else _LAND_ALONE:
            if getattr(self, key) != type(self).__dataclass_fields__[key].default:
                yield key, f"nothing with data.format={self.format}: it cuts land_pack alone"
        for key in ("num_classes", "ignore"):
            default = type(self).__dataclass_fields__[key].default
            if self.format != "folder" and getattr(self, key) != default:
                yield key, f"nothing with data.format={self.format}, which says it itself"


@dataclass(frozen=True)
class ViewConfig(Section):
    """``views``: what images and masks go through in training; null is what the format suggests.

    Attributes:
        crop: pixels a side; null = whole crops of land_pack, 512 of the others.
        scale: range of a random resize before the crop; null = none for land_pack, else 0.5 to 2.
        horizontal_flip, vertical_flip, quarter_turn: chances; null = 0.5, of the last two for
            land_pack alone: seen from above there is no up.
        brightness, contrast, saturation, hue: jitter of colours, torchvision's strengths.
    """

    crop: Annotated[int, AtLeast(32)] | None = None
    scale: Annotated[list[Annotated[float, Above(0)]], Length(2)] | None = None
    horizontal_flip: Share = 0.5
    vertical_flip: Share | None = None
    quarter_turn: Share | None = None
    brightness: Share = 0.2
    contrast: Share = 0.2
    saturation: Share = 0.1
    hue: Annotated[float, Within(0, 0.5)] = 0.02

    def refusals(self) -> Iterator[tuple[str, str]]:
        """The smaller scale comes first."""
        if self.scale is not None and self.scale[0] > self.scale[1]:
            yield "scale", "[min, max]"


@dataclass(frozen=True)
class LossConfig(Section):
    """``loss``: weights of a sum; a bare name, ``loss=adjusted``, is that one alone.

    Attributes:
        ce: cross-entropy; adjusted: the same, logits adjusted by the pixel prior; dice, lovasz:
            of segmentation_models_pytorch.
        tau: of ``adjusted``; 1 = the prior itself.
    """

    ce: Weight = 0.0
    adjusted: Weight = 0.0
    dice: Weight = 0.0
    lovasz: Weight = 0.0
    tau: Annotated[float, Above(0)] = 1.0

    @classmethod
    def from_scalar(cls, value: str) -> "LossConfig":
        """Make the block that a bare name stands for."""
        if value not in LOSSES:
            raise unknown("loss", value, LOSSES)
        return cls(**{value: 1.0})

    @property
    def weights(self) -> dict[str, float]:
        """The terms that count, by name."""
        found = {key: getattr(self, key) for key in LOSSES}
        return {key: value for key, value in found.items() if value > 0}

    def refusals(self) -> Iterator[tuple[str, str]]:
        """A sum without a term."""
        if not self.weights:
            yield "ce", "a weight above 0 of one of ce, adjusted, dice, lovasz"


def _cross_entropy() -> LossConfig:
    return LossConfig(ce=1.0)


@dataclass(frozen=True)
class SegmentConfig(Section):
    """``ltplugins segment``: its keys. Rates are as they are, whatever the batch."""

    run: str  # whatever load_backbone opens: a run, a checkpoint, an exported folder, a name
    output_dir: str | None = None  # null: that folder's name and "-" and the decoder
    weights: Literal["run", "random"] = "run"  # random: the same network from scratch
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    freeze: bool = False  # the encoder, statistics of BatchNorm included
    data: MaskData = field(default_factory=MaskData)
    views: ViewConfig = field(default_factory=ViewConfig)
    loss: LossConfig = field(default_factory=_cross_entropy)
    epochs: Annotated[int, AtLeast(1)] = 30
    batch_size: Annotated[int, AtLeast(2)] = 32  # of each process
    lr: Annotated[float, Above(0)] = 1e-3
    # Share of lr that the encoder learns at; null: 0.1 of a trained one, 1 from scratch.
    encoder_rate: Annotated[float, UpTo(0, 1)] | None = None
    weight_decay: Annotated[float, AtLeast(0)] = 0.01
    warmup_epochs: Annotated[float, AtLeast(0)] = 1.0
    val_every: Annotated[int, AtLeast(0)] = 5  # epochs; 0: never. It chooses nothing.
    pictures: Annotated[int, AtLeast(0)] = 6  # test images that are kept with their predictions
    seed: Seed = 0
    accelerator: str = "auto"
    devices: Devices = 1
    precision: str | None = None
    overwrite: bool = False  # replace what is in output_dir
