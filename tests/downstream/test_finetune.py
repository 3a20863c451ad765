# SPDX-License-Identifier: MIT
"""The module of a fine-tuning: which loss when, which rates, what stays frozen."""

from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.data import Mixup

from ltplugins.core.errors import UserError
from ltplugins.downstream.finetune import FineTuner, merged_layers
from ltplugins.downstream.losses import (
    effective_weights,
    focal_cross_entropy,
    ldam_loss,
    ldam_margins,
    logit_adjusted_loss,
)
from ltplugins.downstream.options import FinetuneConfig, LoraConfig, LossConfig, MixConfig
from ltplugins.downstream.start import Start, add_adapters

COUNTS = torch.tensor([30, 9, 3])


def tuner(name="test_resnet", epoch=0, **options):
    """A module at an epoch, with a Trainer of 10 steps an epoch."""
    torch.manual_seed(0)
    backbone = timm.create_model(name, num_classes=0)
    start = Start(backbone, backbone.num_features, "any", "hash")
    options = {"epochs": 8, "probe_epochs": 2, "mode": "full", **options}
    module = FineTuner(start, FinetuneConfig(**options), COUNTS, 0.5)
    trainer = {"current_epoch": epoch, "estimated_stepping_batches": 10 * module.total_epochs}
    module._trainer = SimpleNamespace(**trainer)
    module.log_dict = lambda *args, **kwargs: None
    return module


def batch(n=6):
    g = torch.Generator().manual_seed(1)
    return [torch.arange(n), [torch.randn(n, 3, 32, 32, generator=g)], torch.arange(n) % 3]


LOSSES = {
    "cross_entropy": F.cross_entropy,
    "logit_adjusted": lambda x, y: logit_adjusted_loss(x, y, COUNTS, tau=1.5),
    "focal": lambda x, y: focal_cross_entropy(x, y, gamma=3.0),
    "ldam": lambda x, y: ldam_loss(x, y, ldam_margins(COUNTS, 0.4), scale=20.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_that_of_the_options(name):
    loss = LossConfig(name, tau=1.5, gamma=3.0, margin=0.4)
    head = "cosine" if name == "ldam" else "linear"
    module = tuner(loss=loss, head=head, scale=20.0)
    _, (images,), targets = batch()
    module.on_train_epoch_start()
    expected = LOSSES[name](module(images), targets)
    torch.testing.assert_close(module.training_step(batch(), 0), expected)


def test_ldam_weights_the_classes_late():
    logits, targets = 5 * torch.randn(6, 3), torch.arange(6) % 3
    options = {"head": "cosine", "loss": LossConfig("ldam", reweight_from=0.75, beta=0.99)}
    plain, weighted = (tuner(epoch=e, **options).loss(logits, targets) for e in (5, 6))
    margins = ldam_margins(COUNTS, 0.5)
    torch.testing.assert_close(plain, ldam_loss(logits, targets, margins, scale=30.0))
    weight = effective_weights(COUNTS, 0.99)
    expected = ldam_loss(logits, targets, margins, scale=30.0, weight=weight)
    torch.testing.assert_close(weighted, expected)
    assert plain != weighted


def test_mixed_images_have_mixed_labels():
    module = tuner(mix=MixConfig(mixup=0.8, cutmix=1.0))
    assert isinstance(module.mix, Mixup) and module.mix.cutmix_alpha == 1.0
    seen = []
    module.loss = lambda logits, labels: seen.append(labels) or logits.sum()
    images = batch()
    before = images[1][0].clone()
    for _ in range(3):
        module.training_step(images, 0)
    assert all(labels.shape == (6, 3) for labels in seen)
    assert torch.allclose(torch.stack(seen).sum(dim=2), torch.tensor(1.0))
    assert not torch.equal(torch.stack(seen), F.one_hot(images[2], 3).expand(3, -1, -1).float())
    assert not torch.equal(images[1][0], before)
    assert tuner().mix is None and tuner(mix=MixConfig(1.0, prob=0.0)).mix is None


def test_rates_of_the_layers_follow_the_schedule():
    """The optimiser and scheduler that the module itself makes; see test_layers for the curves."""
    module = tuner(mode="lp_ft", layer_decay=0.5, lr=0.4, probe_lr=2.0, min_lr=0.04)
    (optimizer,), (entry,) = module.configure_optimizers()
    head = {id(p) for p in module.classifier.parameters()}
    is_head = [id(group["params"][0]) in head for group in optimizer.param_groups]
    seen = []
    for _ in range(101):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        entry["scheduler"].step()
    first, *_ = (i for i, h in enumerate(is_head) if h)
    others = [i for i, h in enumerate(is_head) if not h]
    assert [seen[0][i] for i in others] == [0.0] * len(others)
    assert seen[0][first] == pytest.approx(2.0 * 0.5)  # its scale is images of a batch / 256
    peak = seen[30]  # after a probe of 20 steps and a warm-up of 10
    assert peak[first] == pytest.approx(0.2) and len({peak[i] for i in others}) >= 3
    for i in others:
        assert seen[60][i] / seen[60][first] == pytest.approx(peak[i] / peak[first])
    assert seen[100][first] == pytest.approx(0.02)


def test_what_is_frozen_when():
    module = tuner(mode="lp_ft", epoch=1)
    module.on_train_epoch_start()
    assert module.is_probing and not module.backbone.training
    module.training_step(batch(), 0).backward()
    assert all(p.grad is None for p in module.backbone.parameters())
    assert all(p.grad is not None for p in module.classifier.parameters())
    module = tuner(mode="lp_ft", epoch=2)
    module.on_train_epoch_start()
    module.training_step(batch(), 0).backward()
    assert all(p.grad is not None for p in module.backbone.parameters())


@pytest.mark.parametrize("frozen", [False, True])
def test_batchnorm_statistics_move_unless_frozen(frozen):
    module = tuner(freeze_bn=frozen)
    before = {k: v.clone() for k, v in module.state_dict().items() if "running" in k}
    module.on_train_epoch_start()
    module.training_step(batch(), 0)
    assert all(torch.equal(v, module.state_dict()[k]) == frozen for k, v in before.items())


def test_adapters_merge_into_plain_layers():
    pytest.importorskip("peft")
    backbone = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    plain = {k: v.clone() for k, v in backbone.state_dict().items()}
    add_adapters(backbone, LoraConfig(rank=2), "test_vit")
    trained = [k for k, p in backbone.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in key for key in trained)
    with torch.no_grad():
        for key, parameter in backbone.named_parameters():
            if "lora_" in key:
                parameter.normal_()
    x = torch.randn(2, 3, 32, 32)
    twin = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    state = plain | merged_layers(backbone)
    twin.load_state_dict(state)
    torch.testing.assert_close(twin(x), backbone(x), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(state["blocks.0.attn.qkv.weight"], plain["blocks.0.attn.qkv.weight"])


def test_adapters_need_their_layers():
    with pytest.raises(
        UserError, match=r"got lora, .* layers qkv of a ViT; it has no linear layer"
    ):
        add_adapters(timm.create_model("test_resnet", num_classes=0), LoraConfig(), "test_resnet")
    vit = timm.create_model("test_vit", num_classes=0)
    with pytest.raises(UserError, match=r"layers query of a ViT; its .* fc1, fc2, proj, qkv\. Set"):
        add_adapters(vit, LoraConfig(layers=["query"]), "test_vit")
