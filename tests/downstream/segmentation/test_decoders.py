# SPDX-License-Identifier: MIT
"""Decoders on our encoders: features are those of the backbone, and what does not fit is told."""

import sys

import pytest
import torch

from ltplugins.core.errors import UserError
from ltplugins.downstream.segmentation.decoders import build_network
from ltplugins.downstream.segmentation.options import DecoderConfig
from ltplugins.host.builtin.backbones import build_backbone
from ltplugins.host.stem import apply_stem
from ltplugins.zoo.backbone import Architecture, Backbone, Provenance
from ltplugins.zoo.load import load_backbone

KWARGS = {"convnext_atto": {"patch_size": 1, "depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}}
VIT = {"img_size": 32, "patch_size": 8}
CNNS = ("unet", "fpn", "deeplabv3plus", "upernet", "segformer", "linear")


def backbone(name, kwargs=None):
    """A network with weights and statistics of its own, in evaluation mode."""
    torch.manual_seed(3)
    known = load_backbone("test_resnet", pretrained=False)
    net, width = build_backbone(name, dict(kwargs or {}))
    for value in net.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.add_(0.1 * torch.rand(value.shape))
    return Backbone(
        net, known.transform, width, Architecture(name, dict(kwargs or {})), Provenance(name)
    )


def build(which, decoder, size=64, **keys):
    torch.manual_seed(0)
    return build_network(which, DecoderConfig(decoder, **keys), 5, size)


@pytest.mark.parametrize("decoder", CNNS)
def test_every_decoder_of_a_cnn(decoder):
    net = build(backbone("test_resnet"), decoder).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 3, 64, 96)).shape == (2, 5, 64, 96)


@pytest.mark.parametrize("decoder", ["dpt", "linear"])
def test_decoders_of_a_vit(decoder):
    net = build(backbone("test_vit", VIT), decoder).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 3, 64, 96)).shape == (2, 5, 64, 96)


@pytest.mark.parametrize("decoder", ["unet", "linear"])
def test_a_network_that_starts_at_full_resolution(decoder):
    net = build(backbone("convnext_atto", KWARGS["convnext_atto"]), decoder).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, 32, 32)).shape == (1, 5, 32, 32)


def test_a_network_that_starts_at_a_quarter():
    net = build(backbone("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}), "fpn")
    with torch.no_grad():
        assert net.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 5, 64, 64)


@pytest.mark.parametrize("decoder", ["unet", "linear"])
def test_the_encoder_has_the_backbones_features(decoder):
    """smp's last stage, pooled as the network itself pools it, is what load_backbone gives."""
    ours = backbone("test_resnet")
    encoder = build(ours, decoder).encoder.eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder(images)[-1], ours.net.forward_features(images))
        torch.testing.assert_close(encoder(images)[-1].mean((2, 3)), ours(images))


def test_a_vits_features_at_its_own_size():
    ours = backbone("test_vit", VIT)
    encoder = build(ours, "linear").encoder.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        (last,), _ = encoder(images)
        tokens = ours.net.forward_features(images)[:, ours.net.num_prefix_tokens :]
        normed = ours.net.norm(last.flatten(2).transpose(1, 2))  # smp takes a block's output
    torch.testing.assert_close(normed, tokens)


def test_dilated_strides_leave_the_weights():
    ours = backbone("test_resnet")
    state = build(ours, "deeplabv3plus").encoder.model.state_dict()
    own = ours.net.state_dict()
    assert state.keys() <= own.keys()
    assert all(torch.equal(value, own[key]) for key, value in state.items())


def test_random_weights_are_drawn_anew():
    ours = backbone("test_resnet")
    nets = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        nets.append(build_network(ours, DecoderConfig(), 5, 64, random=True))
    first, same, other = (net.encoder.model.conv1[0].weight for net in nets)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert not torch.equal(first, ours.net.conv1[0].weight)


def test_trying_it_leaves_no_trace():
    net = build(backbone("test_resnet"), "unet")
    counts = [v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")]
    encoder = len(net.encoder.state_dict())
    assert encoder and all(int(v) == 0 for v in counts)


@pytest.mark.parametrize(
    ("name", "kwargs", "decoder", "text"),
    [
        ("test_vit", VIT, "unet", r"expected dpt or linear for test_vit.*\(1/8\), got unet"),
        ("test_vit", VIT, "segformer", "expected dpt or linear for test_vit"),
        ("test_resnet", {}, "dpt", "for test_resnet, whose features have several resolutions"),
    ],
)
def test_pairs_that_do_not_fit(name, kwargs, decoder, text):
    with pytest.raises(UserError, match=text):
        build(backbone(name, kwargs), decoder)


def test_a_small_stem_is_refused():
    net, width = build_backbone("resnet18", {})
    apply_stem(net, True)
    known = load_backbone("test_resnet", pretrained=False)
    small = Backbone(
        net, known.transform, width, Architecture("resnet18", {}, True), Provenance("x")
    )
    with pytest.raises(
        UserError, match="no decoder takes this encoder as timm's: resnet18 has the"
    ):
        build(small, "unet")


def test_arguments_that_a_decoder_does_not_have():
    with pytest.raises(UserError, match=r"unet does not fit test_resnet: .*decoder_chanels"):
        build(backbone("test_resnet"), "unet", kwargs={"decoder_chanels": [1]})
    with pytest.raises(UserError, match="of the decoder alone, without encoder_depth"):
        DecoderConfig("unet", {"encoder_depth": 3})


def test_images_of_a_size_that_does_not_go():
    with pytest.raises(UserError, match="dpt does not fit test_vit on images of 36 pixels"):
        build(backbone("test_vit", VIT), "dpt", size=36)


def test_smp_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"segment needs segmentation_models_pytorch.*\[seg\]"):
        build(backbone("test_resnet"), "unet")
