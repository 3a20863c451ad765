# SPDX-License-Identifier: MIT
"""Networks of segmentation_models_pytorch on our encoders, through timm's entries.

The backbone is written as an entry that timm reads (``ltplugins export``), and smp builds its
encoder from there: what is trained on is what any other program would train on.

Legend: B batch, C classes, H, W of an image, D width of features.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltplugins.core.errors import UserError, install
from ltplugins.downstream.segmentation.options import DecoderConfig, DecoderName
from ltplugins.zoo.backbone import Backbone
from ltplugins.zoo.export import write_entry

_CLASSES = {
    "unet": "Unet",
    "fpn": "FPN",
    "deeplabv3plus": "DeepLabV3Plus",
    "upernet": "UPerNet",
    "segformer": "Segformer",
    "dpt": "DPT",
}
_OF_CNNS: tuple[DecoderName, ...] = ("unet", "fpn", "deeplabv3plus", "upernet", "segformer")
_LEAST_DEPTH = 3  # stages of a pyramid that every decoder of several resolutions wants
_UNET_CHANNELS = (256, 128, 64, 32, 16)  # smp's, from the deepest stage on


class SmpNet(nn.Module):
    """A network of smp's: Float[B 3 H W] to logits Float[B C H W].

    Args:
        net: its logits are brought to the images' resolution where they differ.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    @property
    def encoder(self) -> nn.Module:
        """smp's encoder; ``encoder.model`` is timm's network."""
        return self.net.encoder

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the images' resolution."""
        return resized(self.net(images), images)


class LinearNet(nn.Module):
    """One linear layer on the last features of each place, after a BatchNorm without weights.

    Args:
        encoder: of smp's.
        width: D.
        num_classes: C.
    """

    def __init__(self, encoder: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the images' resolution."""
        found = self.encoder(images)
        last = (found[0] if isinstance(found, tuple) else found)[-1]
        return resized(self.head(self.norm(last)), images)


def resized(logits: Tensor, images: Tensor) -> Tensor:
    """Logits Float[B C h w] at the resolution of Float[B 3 H W], bilinear."""
    if logits.shape[-2:] == images.shape[-2:]:
        return logits
    return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


Segmentation = SmpNet | LinearNet


def build_network(
    backbone: Backbone, decoder: DecoderConfig, num_classes: int, size: int, *, random: bool = False
) -> Segmentation:
    """Put a decoder on a backbone; weights of the decoder are drawn from torch's generator.

    Args:
        backbone: with its weights.
        decoder: which, and its arguments.
        num_classes: C.
        size: pixels a side of an image that the network is tried on.
        random: draw the encoder's weights, too.

    Raises:
        UserError: smp is not installed, timm has no such network, or the two do not fit.
    """
    smp = import_smp()
    with tempfile.TemporaryDirectory() as tmp:
        entry = Path(tmp) / "entry"
        try:
            write_entry(backbone, entry)
        except UserError as error:
            raise UserError(f"no decoder takes this encoder as timm's: {error}") from None
        name, strides = f"local-dir:{entry}", _strides(entry)
        _require_pair(decoder.name, backbone.architecture.name, strides)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of prefix tokens, which a ViT need not have
                net = _build(smp, name, strides, decoder, num_classes, random)
        except UserError:
            raise
        except Exception as error:  # whatever smp or timm makes of it
            raise _misfit(decoder.name, backbone, error) from None
    _try(net, decoder.name, backbone, size)
    return net


def import_smp() -> Any:
    """segmentation_models_pytorch.

    Raises:
        UserError: it is not installed.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise UserError(
            f"ltplugins segment needs segmentation_models_pytorch. In the checkout: "
            f"{install('seg')}"
        ) from None
    return smp


def _build(
    smp: Any,
    name: str,
    strides: Sequence[int],
    decoder: DecoderConfig,
    num_classes: int,
    random: bool,
) -> Segmentation:
    weights = None if random else True
    is_plain = len(set(strides)) == 1
    # A plain ViT has position embeddings of one size; they are interpolated to the images'.
    sizes = {"dynamic_img_size": True} if is_plain else {}
    if decoder.name == "linear":
        if is_plain:
            from segmentation_models_pytorch.encoders.timm_vit import TimmViTEncoder

            encoder: Any = TimmViTEncoder(
                name, pretrained=not random, depth=1, output_indices=[-1], **sizes
            )
        else:
            depth = encoder_depth(strides)
            encoder = smp.encoders.get_encoder(f"tu-{name}", depth=depth, weights=weights)
        return LinearNet(encoder, encoder.out_channels[-1], num_classes)
    kwargs: dict[str, Any] = {"encoder_weights": weights, "classes": num_classes}
    if is_plain:
        kwargs |= {**sizes, "encoder_depth": min(4, len(strides)), "decoder_readout": "ignore"}
    else:
        kwargs["encoder_depth"] = encoder_depth(strides)
        if decoder.name == "unet":
            kwargs["decoder_channels"] = _UNET_CHANNELS[: kwargs["encoder_depth"]]
    factory = getattr(smp, _CLASSES[decoder.name])
    return SmpNet(factory(encoder_name=f"tu-{name}", **{**kwargs, **decoder.kwargs}))


def encoder_depth(strides: Sequence[int]) -> int:
    """smp's count of halvings for a pyramid of these strides.

    >>> encoder_depth([2, 4, 8, 16, 32]), encoder_depth([4, 8, 16, 32]), encoder_depth([1, 2, 4, 8])
    (5, 5, 3)
    """
    return {1: -1, 2: 0, 4: 1}.get(strides[0], 0) + len(strides)


def _strides(entry: Path) -> list[int]:
    """Of the stages that a network hands out; all equal = a plain ViT.

    Raises:
        UserError: it hands out none.
    """
    try:
        with torch.device("meta"):
            model: Any = timm.create_model(f"local-dir:{entry}", pretrained=False)
        found = [int(stage["reduction"]) for stage in model.feature_info]
    except Exception as error:  # networks without this information fail in ways of their own
        raise UserError(
            f"the encoder does not say at which resolutions its stages are ({error}): no decoder "
            f"takes it."
        ) from None
    return found


def _require_pair(decoder: DecoderName, name: str, strides: Sequence[int]) -> None:
    """Refuse pairs that are known not to fit."""
    is_plain = len(set(strides)) == 1
    if is_plain and decoder in _OF_CNNS:
        raise UserError(
            f"decoder: expected dpt or linear for {name}, whose features have one resolution "
            f"(1/{strides[0]}), got {decoder}, which wants several. Set decoder=dpt."
        )
    if not is_plain and decoder == "dpt":
        raise UserError(
            f"decoder: expected {', '.join(_OF_CNNS)} or linear for {name}, whose features have "
            f"several resolutions, got dpt, which is for plain ViTs. Set decoder=unet."
        )
    if not is_plain and decoder in _OF_CNNS and encoder_depth(strides) < _LEAST_DEPTH:
        raise UserError(
            f"decoder: expected linear for {name}, which has {len(strides)} stages, got {decoder}, "
            f"which wants more. Set decoder=linear."
        )


@torch.no_grad()
def _try(net: Segmentation, decoder: DecoderName, backbone: Backbone, size: int) -> None:
    """Refuse a network that cannot work on two images of the size, in training mode."""
    device, states = torch.zeros(2, 3, size, size), net.state_dict()
    kept = {key: value.clone() for key, value in states.items()}  # BatchNorm counts
    try:
        with torch.random.fork_rng(devices=[]):
            net.train()(device)
    except Exception as error:
        raise _misfit(decoder, backbone, error, size) from None
    net.load_state_dict(kept)


def _misfit(decoder: str, backbone: Backbone, error: Exception, size: int = 0) -> UserError:
    sized = f" on images of {size} pixels" if size else ""
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return UserError(
        f"decoder: {decoder} does not fit {backbone.architecture.name}{sized}: {reason}. Take "
        f"another decoder (unet, fpn, linear), check decoder.kwargs, or give larger images."
    )
